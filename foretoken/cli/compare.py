"""One prompt answered twice, by the target alone and with a draft, and where the two texts part if they do."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from foretoken.cli.interrupt import Interrupt

if TYPE_CHECKING:
    from foretoken.llm import LLM, Completion
    from foretoken.metrics import Stats
    from foretoken.models.base import LanguageModel
    from foretoken.request import Request

ENOUGH_S = 4.0  # per prompt; no repeat is begun after it


@dataclass(frozen=True, slots=True)
class Difference:
    """The first token at which two answers part.

    Attributes:
        index: its place in the answers.
        plain: its id in the plain answer, None if that has ended.
        speculative: its id in the speculative answer, None if that has ended.
        top2_logit_gap: how far the target's two best tokens are apart there; next to nothing means a tie, which
            rounding decides.
    """

    index: int
    plain: int | None
    speculative: int | None
    top2_logit_gap: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to one prompt, with the times of every repeat.

    Attributes:
        plain: the target's own answer.
        speculative: the answer with a draft.
        seconds: times of both, in the order they were measured.
        difference: None when the texts are identical.
    """

    plain: Completion
    speculative: Completion
    seconds: tuple[list[float], list[float]]
    difference: Difference | None

    @property
    def stats(self) -> tuple[Stats, Stats]:
        """Counts of both, with the median of their times."""
        from foretoken.metrics import Stats

        both = zip((self.plain, self.speculative), self.seconds, strict=True)
        plain, speculative = (Stats(answer.stats.counts, statistics.median(times)) for answer, times in both)
        return plain, speculative

    def to_json(self) -> dict[str, Any]:
        """Both answers' counts and times, the text once, and where they part."""
        return {
            "text": self.speculative.text,
            "token_ids": self.speculative.token_ids,
            "identical": self.difference is None,
            "difference": asdict(self.difference) if self.difference else None,
            **{
                name: {"stats": stats.to_json(), "seconds": seconds}
                for name, stats, seconds in zip(("plain", "speculative"), self.stats, self.seconds, strict=True)
            },
        }


def compare(llm: LLM, request: Request, repeat: int, interrupt: Interrupt) -> Comparison | None:
    """Answer a request plain and speculatively by turns, so that both meet the same disturbances.

    Returns:
        None when interrupted. A slow machine repeats less often.
    """
    turns = llm.using(draft="none"), llm
    seconds: tuple[list[float], list[float]] = ([], [])
    answers: list[Completion] = []
    started = time.perf_counter()
    for turn in range(2 * repeat):
        if turn > 1 and turn % 2 == 0 and time.perf_counter() - started > ENOUGH_S:
            break
        run = turns[turn % 2].run([request])
        interrupt.follow(run, lambda event: None)
        if interrupt.asked:
            return None
        answers.append(run.completions()[0])
        seconds[turn % 2].append(answers[-1].stats.seconds)
    ids = answers[0].token_ids
    # Every repeat counts: one text that differs is enough.
    other = next((answer for answer in answers if answer.token_ids != ids), answers[-1])
    return Comparison(answers[0], other, seconds, first_difference(llm.models[0], request, ids, other.token_ids))


def first_difference(target: LanguageModel, request: Request, plain: list[int], other: list[int]) -> Difference | None:
    """Where two answers part, and how sure the target is there."""
    if plain == other:
        return None
    index = next((i for i, (a, b) in enumerate(zip(plain, other, strict=False)) if a != b), min(len(plain), len(other)))
    here, there = (ids[index] if index < len(ids) else None for ids in (plain, other))
    return Difference(index, here, there, top2_logit_gap(target, [*request.prompt, *plain[:index]]))


def top2_logit_gap(target: LanguageModel, tokens: list[int]) -> float:
    """Distance between the target's two highest logits for what follows these tokens."""
    import torch

    from foretoken.models.prefill import prefill

    with torch.inference_mode():
        cache = prefill(target, [tokens[:-1]])
        scores = target.forward(torch.tensor([tokens[-1:]]), cache)
        best, second = scores.logits[0, -1].topk(2).values.tolist()
    return float(best - second)
