"""Rows whose candidates are point masses need no rule: they are kept as far as the target says the same by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import Tensor

from foretoken.accept.base import AcceptanceRule
from foretoken.host import to_host
from foretoken.rng import Only, Rng
from foretoken.types import Draft, Verdict

PARTS = [field.name for field in fields(Verdict)]


def settle(rule: AcceptanceRule, draft: Draft, p: Tensor, rng: Rng) -> tuple[Draft, Verdict]:
    """What a rule makes of a draft; rows of point masses are matched, which comes to the same law for less.

    Which way a row goes does not depend on its neighbours, nor do the random numbers it spends.

    Args:
        rule: decides about the other rows.
        draft: what was drafted.
        p: [B, N, V] float. What the request asks to sample from after each node.
        rng: the rows' random numbers for acceptance.

    Returns:
        The draft and the verdict, on the CPU but for the law `q` and what was read along.
    """
    points = [False] * len(p)
    if rule.lossless and draft.chain:
        points = [True] * len(p) if draft.q is None else list(draft.points or points)
    if not any(points):
        near, parts = draft.near(*_parts(rule.accept(draft.at(p.device), p, rng)))
        return near, Verdict(*parts)
    near, (said, mass) = draft.near(*rng.along(p, _chains(draft, points)))
    sums = [row if point else [] for row, point in zip(mass.tolist(), points, strict=True)]
    matched = rule.match(near, said, sums)
    if all(points):
        return near, matched
    others = to_host(*_parts(rule.accept(draft.at(p.device), p, Only(rng, [not point for point in points]))))
    mine = torch.tensor(points)
    pairs = zip(_parts(matched), others, strict=True)
    return near, Verdict(*(torch.where(mine[:, None] if one.dim() > 1 else mine, one, two) for one, two in pairs))


def _parts(verdict: Verdict) -> list[Tensor]:
    return [getattr(verdict, name) for name in PARTS]


def _chains(draft: Draft, points: Sequence[bool]) -> list[list[int] | None]:
    """What was drafted after the roots of those rows; where nothing was, no device is waited for."""
    if draft.tokens.shape[1] == 1:
        return [[] if point else None for point in points]
    tokens, sizes = (each.tolist() for each in to_host(draft.tokens, draft.sizes))
    return [row[1:size] if point else None for row, size, point in zip(tokens, sizes, points, strict=True)]
