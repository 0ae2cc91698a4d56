"""The same promises on the built-in pair of real models, in float32, on every backend."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import foretoken
from foretoken.llm import LLM
from foretoken.prices import typical
from foretoken.registry import METHODS, find
from foretoken.request import Request, Sampling
from tests.contract.far import GPU
from tests.contract.methods import Choice, Setup, pairwise

PROMPTS = ["How many legs do two dogs have?", "Name three colours.", "Why is the sky blue at noon and red at night?"]
TOKENS = 24
REGISTERED = {
    station: tuple(Choice(find(station, name)) for name in sorted(METHODS[station])) for station in ("draft", "shape")
}
LENGTHS = tuple(Choice(find("length", name)) for name in sorted(METHODS["length"]))
SETUPS = pairwise(length=LENGTHS, **REGISTERED)


MISSING = pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra `openvino`")
PLACES = [
    ("cpu", "torch"),
    ("cpu", "graphs"),
    pytest.param(("cpu", "openvino"), marks=MISSING),
    pytest.param(("cuda", "torch"), marks=GPU),
    pytest.param(("cuda", "graphs"), marks=GPU),
]


@pytest.fixture(scope="module", params=PLACES, ids="-".join)
def llm(request: pytest.FixtureRequest) -> LLM:
    device, backend = request.param
    return foretoken.load(dtype="float32", device=device, backend=backend)


@pytest.fixture(scope="module")
def plain(llm: LLM) -> list[list[int]]:
    """Greedy continuations, one token at a time, each from a full reading of the text by the model itself."""
    return [continuation(llm, list(request.prompt)) for request in requests(llm)]


def requests(llm: LLM, **options: object) -> list[Request]:
    return [llm.request(prompt, max_new_tokens=TOKENS, **options) for prompt in PROMPTS]


def continuation(llm: LLM, text: list[int]) -> list[int]:
    start = len(text)
    while len(text) < start + TOKENS and (len(text) == start or text[-1] not in llm.target.stop_token_ids):
        text.append(int(logits(llm, text)[-1].argmax()))
    return text[start:]


@torch.no_grad()
def logits(llm: LLM, text: list[int]) -> Tensor:
    """[N, V] float32. Scores after every token of a text read in one piece."""
    target = llm.models[0]
    return target.forward(torch.tensor([text]), target.new_cache(1)).logits[0].cpu()


def test_a_request_that_must_repeat_is_told_the_same_on_every_backend(llm: LLM) -> None:
    checkpoints = [llm.target, llm.draft]
    weights = [
        sum(of.numel() for of in load_file(one.path / "model.safetensors").values()) for one in checkpoints if one
    ]
    assert llm.costs is not None
    assert llm.costs.typical is not None
    assert llm.costs.typical.draft_s(1) == typical(*weights).draft_s(1)


@pytest.mark.parametrize("setup", SETUPS, ids=str)
def test_greedy_texts_equal_plain_decoding(setup: Setup, llm: LLM, plain: list[list[int]]) -> None:
    engine = setup.engine(*llm.models)
    rows = engine.start(requests(llm))
    while engine.batch.rows:
        engine.step()
    assert [row.output for row in rows] == plain
    for row in rows:
        c = row.counts
        assert c.num_drafted == c.num_tokens - c.num_target_forwards + (c.num_drafted - c.num_accepted) + c.num_cut


def test_logprobs_equal_those_of_one_reading_of_the_text(llm: LLM) -> None:
    warm = Sampling(temperature=0.9, top_p=0.95)
    answers = llm.generate(PROMPTS, warm, max_new_tokens=TOKENS, seed=3, logprobs=3)
    for request, answer in zip(requests(llm), answers, strict=True):
        text = [*request.prompt, *answer.token_ids]
        own = logits(llm, text).log_softmax(-1)[len(request.prompt) - 1 : -1]
        assert answer.logprobs is not None
        for at, token, logprob in zip(own, answer.token_ids, answer.logprobs, strict=True):
            assert logprob.chosen == pytest.approx(float(at[token]), abs=1e-4)
            best, ids = at.topk(3)
            assert [value for _, value in logprob.top] == pytest.approx(best.tolist(), abs=1e-4)
            assert logprob.top[0][0] == int(ids[0])


def test_a_seed_gives_the_same_text_alone_and_in_a_batch(llm: LLM) -> None:
    warm = Sampling(temperature=1.0, top_p=0.9)
    together = llm.generate(PROMPTS, warm, max_new_tokens=TOKENS, seed=11)
    again = llm.generate(PROMPTS[::-1], warm, max_new_tokens=TOKENS, seed=11)[::-1]
    alone = [llm.generate(prompt, warm, max_new_tokens=TOKENS, seed=11) for prompt in PROMPTS]
    assert [a.token_ids for a in together] == [a.token_ids for a in again] == [a.token_ids for a in alone]
    assert llm.generate(PROMPTS[0], warm, max_new_tokens=TOKENS, seed=12).token_ids != alone[0].token_ids
