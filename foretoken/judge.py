"""Station 4: what the rule makes of the draft, given what the target says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from foretoken.accept.base import AcceptanceRule
from foretoken.host import largest, to_host
from foretoken.rng import check_usable
from foretoken.sampling import distribution
from foretoken.types import Batch, Draft, Scores, Verdict
from foretoken.verify import Paths


def judge(rule: AcceptanceRule, draft: Draft, scores: Scores, batch: Batch) -> tuple[Draft, Verdict]:
    """Let the rule decide.

    Where every request takes the target's likeliest token, that token is all the rule needs of a chain, and no
    distribution is built.

    Returns:
        The draft and the verdict, on the CPU but for the law `q` and what was read along: what follows looks at them.
    """
    logits = scores.logits[:, : draft.tokens.shape[1]]  # what was read along is none of the rule's business
    if rule.lossless and draft.chain and all(row.request.sampling.greedy() for row in batch.rows):
        draft, (most, likeliest) = _on_host(draft, *largest(logits))
        verdict = rule.match(draft, likeliest)
        check_scores(most, verdict.counts)
        return draft, verdict
    verdict = rule.accept(draft, distribution(logits, batch.rows, Paths(draft)), batch.accept_rng)
    draft, parts = _on_host(draft, *(getattr(verdict, field.name) for field in fields(verdict)))
    return draft, Verdict(*parts)


def check_scores(most: Tensor, counts: Tensor) -> None:
    """Raise GenerationError where the target gave no numbers.

    Args:
        most: [B, N] float. Score of its likeliest token after each node of a chain.
        counts: [B] int64. Accepted tokens; what comes later does not matter.
    """
    looked_at = zip(most.tolist(), counts.tolist(), strict=True)
    check_usable([score - score + 1 for row, count in looked_at for score in row[: count + 1]])  # 1, or no number


def _on_host(draft: Draft, *more: Tensor) -> tuple[Draft, Sequence[Tensor]]:
    """All that is small, and more: a greedy step need not wait for a device at any other time."""
    if more[0].device.type == "cpu":
        return draft, more
    names = ["tokens", "parents", "sizes", "num_forwards", *(["prob"] if draft.prob is not None else [])]
    here = to_host(*(getattr(draft, name) for name in names), *more)
    near: dict[str, Any] = dict(zip(names, here, strict=False))
    return replace(draft, **near), here[len(names) :]
