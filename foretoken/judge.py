"""Station 4: what the rule makes of the draft, given what the target says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from foretoken.accept.base import AcceptanceRule
from foretoken.host import largest, to_host
from foretoken.rng import Dice, Only, check_usable
from foretoken.sampling import distribution
from foretoken.types import Batch, Draft, Scores, Verdict
from foretoken.verify import Paths


def judge(rule: AcceptanceRule, draft: Draft, scores: Scores, batch: Batch) -> tuple[Draft, Verdict]:
    """Let the rule decide.

    A chain of point masses is kept as far as the target says the same by itself, whatever the lossless rule: one
    token of the target's after each node is all it needs. Where every request takes the likeliest token that holds for
    any chain, and no distribution is built.

    Returns:
        The draft and the verdict, on the CPU but for the law `q` and what was read along: what follows looks at them.
    """
    logits = scores.logits[:, : draft.tokens.shape[1]]  # what was read along is none of the rule's business
    alike = rule.lossless and draft.chain
    if alike and all(row.request.sampling.greedy() for row in batch.rows):
        most, best = largest(logits)
        draft, (said, most) = _on_host(draft, best, most)
        # 1, or no number.
        return draft, _match(rule, draft, said, [[score - score + 1 for score in row] for row in most.tolist()])
    p = distribution(logits, batch.rows, Paths(draft))
    points = [alike and draft.q is None] * len(p)
    if alike and draft.q is not None and draft.points:
        points = list(draft.points)
    near, _ = _on_host(draft)
    if not any(points):
        return near, _accept(rule, draft, p, batch.accept_rng)
    chains = [
        row[1:size] if point else None
        for row, size, point in zip(near.tokens.tolist(), near.sizes.tolist(), points, strict=True)
    ]
    said, mass = to_host(*batch.accept_rng.along(p, chains))
    verdict = _match(rule, near, said, [row if point else [] for row, point in zip(mass.tolist(), points, strict=True)])
    if all(points):
        return near, verdict
    others = _accept(rule, draft, p, Only(batch.accept_rng, [not point for point in points]))
    matched = torch.tensor(points)
    pairs = [(getattr(verdict, field.name), getattr(others, field.name)) for field in fields(Verdict)]
    return near, Verdict(*(torch.where(matched[:, None] if one.dim() > 1 else matched, one, two) for one, two in pairs))


def _accept(rule: AcceptanceRule, draft: Draft, p: Tensor, rng: Dice) -> Verdict:
    """The verdict, on the CPU."""
    verdict = rule.accept(draft, p, rng)
    return Verdict(*to_host(*(getattr(verdict, field.name) for field in fields(verdict))))


def _match(rule: AcceptanceRule, draft: Draft, said: Tensor, mass: list[list[float]]) -> Verdict:
    """The verdict, and an error where the target left nothing to choose from."""
    verdict = rule.match(draft, said)
    check_said(mass, verdict.counts.tolist())
    return verdict


def check_said(mass: list[list[float]], counts: list[int]) -> None:
    """Raise GenerationError where the target left nothing to choose from.

    Args:
        mass: per row. What must be above zero after each node of a chain.
        counts: per row. Accepted tokens; what comes later does not matter.
    """
    check_usable([one for row, count in zip(mass, counts, strict=True) for one in row[: count + 1]])


def _on_host(draft: Draft, *more: Tensor) -> tuple[Draft, Sequence[Tensor]]:
    """All that is small, and more: a greedy step need not wait for a device at any other time."""
    if draft.tokens.device.type == "cpu":
        return draft, more
    names = ["tokens", "parents", "sizes", "num_forwards", *(["prob"] if draft.prob is not None else [])]
    here = to_host(*(getattr(draft, name) for name in names), *more)
    near: dict[str, Any] = dict(zip(names, here, strict=False))
    return replace(draft, **near), here[len(names) :]
