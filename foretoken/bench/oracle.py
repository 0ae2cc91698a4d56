"""The best candidate lengths there are, known from the answer: what every length policy is measured against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from foretoken.length.base import Growth, LengthPolicy, Plan, within
from foretoken.llm import LLM
from foretoken.race import winners
from foretoken.request import Request, Sampling
from foretoken.rng import SeededRng
from foretoken.sampling import distribution
from foretoken.tokenizer import TextPieces
from foretoken.train.acceptance_data import read_once
from foretoken.types import Batch, Frontier, Row

Agreement = Mapping[tuple[int, ...], Sequence[bool]]


class Oracle(LengthPolicy):
    """Draft exactly the run of tokens that will be accepted.

    It discards nothing and verifies as seldom as any candidate lengths could, as long as a step holds the whole run.
    For requests whose answer is the same whatever is drafted: at temperature 0, or judged by `coupled`.

    Args:
        agreement: by prompt, whether the draft's choice at each place of the answer is the answer's.
    """

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement

    def grow(self, frontier: Frontier, batch: Batch) -> Growth:
        return within(frontier, self._runs(batch))

    def plan(self, batch: Batch, depth: int, least: int = 1) -> Plan:
        return Plan(max(self._runs(batch)) - depth)

    def _runs(self, batch: Batch) -> list[int]:
        """How many tokens will be accepted of each row's draft."""
        known = [self._agreement[row.request.prompt][len(row.output) :] for row in batch.rows]
        return [([*ahead, False]).index(False) for ahead in known]


def foreseeable(llm: LLM, sampling: Sampling) -> bool:
    """Whether what will be accepted of a draft model can be known: nothing is drawn, or by the same numbers always."""
    sure = sampling.temperature == 0 and not _drafts_at(llm)
    return llm.draft is not None and (sure or llm.methods["accept"].type.coupled)


def _drafts_at(llm: LLM) -> float | None:
    """The draft's own temperature, if it has one."""
    return getattr(llm.methods["draft"].config(), "temperature", None)


def oracle(llm: LLM, requests: Sequence[Request], progress: Callable[[int, int], None] = lambda done, of: None) -> LLM:
    """The same models with the oracle for these requests. Costs a plain answer and a draft forward for each of them.

    Args:
        llm: with a draft model, and `foreseeable` with the requests' sampling parameters.
        requests: all it will be asked.
        progress: told how many requests are read, and of how many.
    """
    plain = llm.using(draft="none")
    agreement = {}
    for done, request in enumerate(requests, 1):
        run = plain.run([request])
        for _ in run:
            pass
        agreement[request.prompt] = agree(llm, request, run.completions()[0].token_ids)
        progress(done, len(requests))
    seeing = llm.alone().using(length="fixed")  # what it knows is what the draft model says
    seeing._length = Oracle(agreement)  # it is no method one can choose: it knows one answer per prompt
    return seeing


@torch.inference_mode()
def agree(llm: LLM, request: Request, text: Sequence[int]) -> list[bool]:
    """Whether the draft would choose the token of a text at each of its places.

    Args:
        llm: with a draft model.
        request: its prompt, sampling parameters and seed, `foreseeable`.
        text: the answer's ids. Places beyond the draft's context are left out, since nothing is drafted there.
    """
    _, draft = llm.models
    assert draft is not None, "`variants` refuses an oracle without a draft"
    tokens = [*request.prompt, *text][: draft.max_length]
    logits = read_once(draft, tokens).logits[:, len(request.prompt) - 1 : len(tokens) - 1]
    row = Row(0, request, TextPieces(llm.tokenizer.decode, (), frozenset()), len(tokens), list(request.prompt))
    (laws,) = distribution(logits, [row], lambda _, node: list(text[:node]), _drafts_at(llm))
    chosen = laws.argmax(-1)
    if llm.methods["accept"].type.coupled:
        (numbers,) = SeededRng([row], "draft").numbers(laws.shape[1], len(laws), 0)
        chosen, _ = winners(laws, numbers)
    return [choice == token for choice, token in zip(chosen.tolist(), text, strict=False)]
