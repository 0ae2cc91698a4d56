"""The Python interface, over the built-in pair in float32."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as RawTokenizer
from torch import Tensor

import foretoken
from foretoken import LLM, Completion, ConfigError, FinishReason, ModelError, Origin, RequestError, Sampling
from foretoken.config import DEFAULTS, Method
from foretoken.models.hf import HFModel
from foretoken.models.source import BUILTIN, Checkpoint

EVAL = Path(foretoken.__file__).parents[2] / "shared" / "data" / "eval" / "gsm8k_test.jsonl"
QUESTION = "Name three colours of the rainbow."
MESSAGES = [{"role": "user", "content": QUESTION}]
PROMPTS = [
    QUESTION,
    "What is 12 + 30?",
    "Write a Python function that adds two numbers.",
    "Tell me about a river, in one sentence.",
    "Hello! Who are you?",
    "List the days of the week.",
]
MIXED = [
    Sampling(),
    Sampling(temperature=0.7, top_p=0.9),
    Sampling(temperature=1.0, min_p=0.05, repetition_penalty=1.1, presence_penalty=0.3, frequency_penalty=0.1),
]


@pytest.fixture(scope="module")
def model() -> LLM:
    return foretoken.load("builtin:pair", dtype="float32")


@pytest.fixture(scope="module")
def plain(model: LLM) -> LLM:
    return model.using(draft="none")


def said(completion: Completion) -> tuple[Any, ...]:
    """All of an answer but how it came about."""
    return completion.text, completion.token_ids, completion.finish_reason, completion.seed


# Prompts and answers -------------------------------------------------------------------------------------------------


def test_one_prompt_gives_one_answer_and_several_give_a_list(model: LLM) -> None:
    alone = model.generate(QUESTION, max_new_tokens=8, seed=0)
    assert isinstance(alone, Completion)
    assert alone.text == model.tokenizer.decode(alone.token_ids)
    assert (len(alone.token_ids), len(alone.origins), alone.logprobs) == (8, 8, None)
    assert said(model.generate(MESSAGES, max_new_tokens=8, seed=0)) == said(alone)
    for prompts in ([QUESTION], [MESSAGES]):
        assert [said(one) for one in model.generate(prompts, max_new_tokens=8, seed=0)] == [said(alone)]
    mixed = model.generate([PROMPTS[1], MESSAGES, QUESTION], max_new_tokens=8, seed=0)
    assert [said(one) for one in mixed[1:]] == [said(alone)] * 2
    raw = model.generate(QUESTION, max_new_tokens=8, seed=0, raw=True)
    assert raw.text != alone.text


def test_no_prompts_give_no_answers(model: LLM) -> None:
    assert model.generate([]) == []
    assert model.generate([], []) == []


def test_every_prompt_may_have_its_own_sampling(model: LLM) -> None:
    answers = model.generate(PROMPTS[:3], MIXED, max_new_tokens=8, seed=3)
    for prompt, sampling, answer in zip(PROMPTS, MIXED, answers, strict=False):
        assert said(model.generate(prompt, sampling, max_new_tokens=8, seed=3)) == said(answer)


def test_too_many_or_too_few_samplings_are_refused(model: LLM) -> None:
    for count in (0, 1, 3):
        with pytest.raises(RequestError, match=f"2 prompts but {count} samplings") as caught:
            model.generate(PROMPTS[:2], MIXED[:count])
        assert caught.value.hint


def test_one_bad_prompt_refuses_all_before_anything_runs(model: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HFModel, "forward", None)
    long = "word " * 3000
    for prompts, match in (
        ([QUESTION, " "], "the prompt is empty"),
        ([QUESTION, long], "the model's context 2048"),
        ([QUESTION, [{"role": "user"}]], "message 1 has no `content`"),
    ):
        with pytest.raises(RequestError, match=match):
            model.generate(prompts)


# Losslessness and independence ---------------------------------------------------------------------------------------


def test_greedy_text_is_that_of_plain_decoding(model: LLM, plain: LLM) -> None:
    answers = model.generate(PROMPTS, max_new_tokens=20, seed=0)
    assert [said(one) for one in answers] == [said(one) for one in plain.generate(PROMPTS, max_new_tokens=20, seed=0)]
    # The default may find that drafting does not pay here; with a fixed length something was accepted for sure.
    answers = model.using(length="fixed:2").generate(PROMPTS, max_new_tokens=20, seed=0)
    assert [said(one) for one in answers] == [said(one) for one in plain.generate(PROMPTS, max_new_tokens=20, seed=0)]
    assert sum(one.stats.counts.num_target_forwards for one in answers) < sum(len(one.token_ids) for one in answers)


@pytest.mark.parametrize("sampling", MIXED, ids=["greedy", "top-p", "min-p and penalties"])
def test_drafting_nothing_equals_no_drafter(model: LLM, plain: LLM, sampling: Sampling) -> None:
    nothing = model.using(length="fixed:0").generate(PROMPTS[:2], sampling, max_new_tokens=8, seed=5)
    assert [said(one) for one in nothing] == [
        said(one) for one in plain.generate(PROMPTS[:2], sampling, max_new_tokens=8, seed=5)
    ]
    assert all(one.stats.counts.num_draft_forwards == 0 for one in nothing)


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_rows_of_a_mixed_batch_equal_each_row_alone(model: LLM, seed: int) -> None:
    check_alone(model, PROMPTS, seed, max_new_tokens=12)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_twenty_questions_in_a_mixed_batch_equal_each_alone(model: LLM, seed: int) -> None:
    if not EVAL.is_file():
        pytest.skip(f"the questions are not in {EVAL}")
    lines = EVAL.read_text(encoding="utf-8").splitlines()[:20]
    check_alone(model, [json.loads(line)["prompt"] for line in lines], seed, max_new_tokens=24)


def check_alone(model: LLM, prompts: list[str], seed: int, max_new_tokens: int) -> None:
    """Greedy, top-p and min-p rows with penalties in one batch say what each says alone."""
    requests = [
        model.request(prompt, MIXED[i % 3], max_new_tokens=max_new_tokens, seed=seed + i)
        for i, prompt in enumerate(prompts)
    ]
    run = model.run(requests)
    list(run)
    for request, together in zip(requests, run.completions(), strict=True):
        alone = model.run([request])
        list(alone)
        assert said(together) == said(alone.completions()[0]), request.sampling


def test_seeds_are_recorded_and_reproduce(model: LLM) -> None:
    hot = Sampling(temperature=1.5)
    first, second = (model.generate(QUESTION, hot, max_new_tokens=12) for _ in range(2))
    assert first.seed != second.seed
    assert first.token_ids != second.token_ids
    again, once_more = (model.generate(QUESTION, hot, max_new_tokens=12, seed=first.seed) for _ in range(2))
    assert said(again) == said(once_more)
    fixed = model.using(length="fixed:2")  # asks no clock, so the seed of any answer repeats it
    by_chance = fixed.generate(QUESTION, hot, max_new_tokens=12)
    assert said(fixed.generate(QUESTION, hot, max_new_tokens=12, seed=by_chance.seed)) == said(by_chance)


# Ends ----------------------------------------------------------------------------------------------------------------


def test_stop_strings_cut_where_plain_decoding_cuts(model: LLM, plain: LLM) -> None:
    options = {"max_new_tokens": 20, "seed": 0, "ignore_eos": True}
    whole = plain.generate(QUESTION, **options).text
    for stop in (whole[9:12], whole[14:15], (whole[20:23], whole[18:21]), [whole[:1]]):
        want = plain.generate(QUESTION, **options, stop=stop)
        assert said(model.generate(QUESTION, **options, stop=stop)) == said(want)
        assert want.finish_reason is FinishReason.STOP
        assert whole.startswith(want.text)
        assert not any(s in want.text for s in ([stop] if isinstance(stop, str) else stop))
    never = model.generate(QUESTION, **options, stop=whole[-3:] + "never")
    assert (never.text, never.finish_reason) == (whole, FinishReason.LENGTH)


def test_the_end_of_sequence_ends_an_answer_and_is_its_last_token(model: LLM) -> None:
    answer = model.generate("What is 12 + 30?", max_new_tokens=200, seed=0)
    assert answer.finish_reason is FinishReason.STOP
    assert answer.token_ids[-1] in model.target.stop_token_ids
    assert "<|" not in answer.text
    longer = model.generate("What is 12 + 30?", max_new_tokens=len(answer.token_ids) + 3, seed=0, ignore_eos=True)
    assert longer.finish_reason is FinishReason.LENGTH
    assert longer.token_ids[: len(answer.token_ids)] == answer.token_ids


def test_one_token(model: LLM) -> None:
    answer = model.generate(QUESTION, max_new_tokens=1)
    assert len(answer.token_ids) == answer.stats.counts.num_target_forwards == 1
    assert (answer.finish_reason, answer.origins) == (FinishReason.LENGTH, [Origin.BONUS])


def test_an_answer_ends_exactly_at_the_context_limit(model: LLM) -> None:
    request = model.request(QUESTION, max_new_tokens=99, seed=0, ignore_eos=True)
    for free in (1, 5):
        filled = replace(request, prompt=(request.prompt * 200)[: model.target.max_length - free])
        run = model.run([filled])
        list(run)
        (answer,) = run.completions()
        assert (len(answer.token_ids), answer.finish_reason) == (free, FinishReason.LENGTH)


# Streaming -----------------------------------------------------------------------------------------------------------


def test_pieces_add_up_to_the_text(model: LLM) -> None:
    for sampling in MIXED:
        whole = model.generate(QUESTION, sampling, max_new_tokens=24, seed=4, logprobs=1)
        events = list(model.stream(QUESTION, sampling, max_new_tokens=24, seed=4, logprobs=1))
        assert "".join(event.text for event in events) == whole.text
        assert [token for event in events for token in event.tokens] == whole.token_ids
        if sampling.temperature > 0:  # at 0 the clock decides what is drafted, and so the way to a token
            assert [origin for event in events for origin in event.origins] == whole.origins
            assert [one for event in events for one in event.logprobs or []] == whole.logprobs
        assert [event.finish for event in events] == [None] * (len(events) - 1) + [whole.finish_reason]


def test_rows_know_which_ids_leave_their_text_open(model: LLM) -> None:
    (row,) = model.engine().start([model.request(QUESTION)])
    (word,) = model.tokenizer.encode("The", raw=True)
    for token in (word, min(model.target.stop_token_ids)):
        row.text.push(token)
    assert (row.text.take(), row.text.take(final=True)) == ("", "The")


def test_closing_a_stream_cancels_and_keeps_what_was_said(model: LLM) -> None:
    whole = model.generate(QUESTION, max_new_tokens=40, seed=0)
    run = model.run([model.request(prompt, max_new_tokens=40, seed=0) for prompt in (QUESTION, PROMPTS[1])])
    events = iter(run)
    next(events)
    next(events)
    running = run.completions()
    assert running[0].finish_reason is None
    assert 0 < len(running[0].token_ids) < 40
    events.close()
    first, second = run.completions()
    assert first.finish_reason is second.finish_reason is FinishReason.CANCELLED
    assert first.token_ids == whole.token_ids[: len(first.token_ids)]
    assert first.text == model.tokenizer.decode(first.token_ids)
    assert run.engine.batch.rows == []
    assert run.cancel() == []


def test_what_a_processor_raises_ends_the_run_and_reaches_the_caller(model: LLM) -> None:
    def broken(input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] > length + 6:
            raise ZeroDivisionError("in the processor")
        return scores

    length = len(model.tokenizer.encode(QUESTION))
    requests = [model.request(QUESTION, one, ignore_eos=True) for one in (Sampling(processors=(broken,)), None)]
    run = model.run(requests)
    with pytest.raises(ZeroDivisionError, match="in the processor"):
        list(run)
    assert [answer.finish_reason for answer in run.completions()] == [FinishReason.CANCELLED] * 2
    assert len(run.completions()[0].token_ids) > 1


def test_logprobs_are_the_same_with_and_without_drafting(model: LLM, plain: LLM) -> None:
    for wanted in (0, 3):
        drafted, want = (llm.generate(QUESTION, max_new_tokens=10, seed=0, logprobs=wanted) for llm in (model, plain))
        assert drafted.logprobs is not None
        assert want.logprobs is not None
        for one, other in zip(drafted.logprobs, want.logprobs, strict=True):
            assert one.chosen == pytest.approx(other.chosen, abs=1e-4)
            assert [i for i, _ in one.top] == [i for i, _ in other.top]
            assert len(one.top) == wanted
            if wanted:
                assert one.top[0][1] == one.chosen  # greedy
                assert sum(math.exp(x) for _, x in one.top) <= 1


def test_stats_count_what_happened(model: LLM) -> None:
    answer = model.generate(QUESTION, max_new_tokens=16, seed=0)
    counts = answer.stats.counts
    assert counts.num_tokens == len(answer.token_ids)
    assert counts.num_accepted == answer.origins.count(Origin.ACCEPTED)
    assert counts.num_tokens == counts.num_accepted + counts.num_target_forwards - counts.num_cut
    assert counts.num_accepted <= counts.num_tested <= counts.num_drafted
    assert answer.stats.seconds > 0


# Loading -------------------------------------------------------------------------------------------------------------


def test_without_weights_nothing_is_loaded_and_everything_cheap_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(Checkpoint, "load", refuse)
    model = foretoken.load("builtin:pair", weights=False)
    assert model.request(QUESTION).prompt == model.tokenizer.encode(QUESTION)
    with pytest.raises(RequestError, match="the prompt has"):
        model.generate("word " * 3000)
    with pytest.raises(AssertionError, match="weights were loaded"):
        model.generate(QUESTION)


def test_other_methods_share_the_weights(model: LLM) -> None:
    other = model.using(length="fixed:2", accept=Method("accept", "block"))
    assert other.models is model.models
    assert (other.methods["length"].options, other.methods["accept"].name) == ({"k": "2"}, "block")
    assert model.methods["length"].name == DEFAULTS["length"]
    with pytest.raises(ConfigError, match="unknown length method"):
        model.using(length="fixd")


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"target": "builtin:trio"}, ModelError, "there is no built-in model `trio`"),
        ({"target": "./nowhere"}, ModelError, "there is no folder `./nowhere`"),
        ({"draft": "model"}, ConfigError, "the drafter `model` needs a draft model"),
        ({"length": "fixd"}, ConfigError, "unknown length method `fixd`"),
        ({"length": "fixed:-1"}, ConfigError, "k cannot be -1"),
        ({"accept": "rejection:2"}, ConfigError, "takes no options"),
        ({"draft_options": {"temprature": "1"}}, ConfigError, "unknown option `--draft.temprature`"),
        ({"draft_options": {"temperature": "warm"}}, ConfigError, "option `--draft.temperature` cannot be 'warm'"),
    ],
)
def test_what_cannot_work_is_refused_with_a_hint(options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        foretoken.load(**{"weights": False, **options})
    assert caught.value.hint  # type: ignore[attr-defined]


def test_the_greedy_rule_refuses_other_temperatures(model: LLM) -> None:
    greedy = model.using(accept="greedy")
    assert greedy.generate(QUESTION, max_new_tokens=3).token_ids == model.generate(QUESTION, max_new_tokens=3).token_ids
    with pytest.raises(RequestError, match="works at temperature 0 only"):
        greedy.generate(QUESTION, MIXED[1])


def test_a_draft_with_another_vocabulary_is_refused_before_weights_are_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "draft"
    shutil.copytree(str(BUILTIN / "pair" / "draft"), folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = tokenizer["model"]["vocab"]
    one, two = [token for token in vocab if len(token) > 4][:2]
    vocab[one], vocab[two] = vocab[two], vocab[one]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    assert RawTokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size() == 4096
    with pytest.raises(ModelError, match="have different vocabularies: 2 of 4096 ids differ") as caught:
        foretoken.load("builtin:pair", str(folder), weights=False)
    assert "--draft none" in str(caught.value.hint)
