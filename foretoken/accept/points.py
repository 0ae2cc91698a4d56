"""Rows whose candidates are point masses need no rule: they are kept as far as the target says the same by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from torch import Tensor

from foretoken.accept.base import AcceptanceRule
from foretoken.rng import Rng
from foretoken.types import Draft, Verdict


def match_likeliest(rule: AcceptanceRule, draft: Draft, logits: Tensor) -> tuple[Draft, Verdict]:
    """What a lossless rule makes of chains where the target takes its likeliest token, whatever the draft's law.

    Args:
        rule: lossless.
        draft: a chain per row.
        logits: [B, N, V] float. The target's, after each node.

    Returns:
        As `settle`.
    """
    if logits.device.type == "cpu":
        (said, most), (draft, _) = _likeliest(logits), draft.near()
    else:
        draft, (highest, best) = draft.near(*logits.max(-1))
        said, most = best.tolist(), highest.tolist()
    return draft, rule.match(draft, said, [[score - score + 1 for score in row] for row in most])  # 1, or no number


def _likeliest(logits: Tensor) -> tuple[list[list[int]], list[list[float]]]:
    """Tokens of the highest scores, of equal ones the first, and those scores; what is no number counts as highest.

    Args:
        logits: [B, N, V] float, on the CPU, where numpy finds them in a tenth of torch's time.
    """
    scores = logits.numpy()
    return scores.argmax(-1).tolist(), scores.max(-1).tolist()


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
    if rule.lossless and draft.chain and not rule.coupled:
        points = [True] * len(p) if draft.q is None else list(draft.points or points)
    if not any(points):
        return rule.settle(draft, p, rng)
    sizes = [size if point else 0 for size, point in zip(draft.sizes, points, strict=True)]
    near, (said, mass) = draft.near(*rng.along(p, draft.tokens, sizes))
    sums = [row if point else [] for row, point in zip(mass.tolist(), points, strict=True)]
    matched = rule.match(near, said.tolist(), sums)
    if all(points):
        return near, matched
    _, others = rule.settle(draft, p, Only(rng, [not one for one in points]))
    return near, _joined(points, matched, others)


def _joined(first: Sequence[bool], one: Verdict, other: Verdict) -> Verdict:
    """A row of the first verdict where it says so, else of the other."""
    parts = [(getattr(one, part.name), getattr(other, part.name)) for part in fields(Verdict)]
    return Verdict(*([a if mine else b for mine, a, b in zip(first, *part, strict=True)] for part in parts))


class Only:
    """Randomness for acceptance in some rows of a batch; the others spend none, and nothing comes up.

    Args:
        rng: of all rows.
        rows: which.
    """

    def __init__(self, rng: Rng, rows: Sequence[bool]) -> None:
        self._rng, self._rows = rng, rows

    def coin(self, row: int, prob: float) -> bool:
        return self._rows[row] and self._rng.coin(row, prob)

    def along(self, probs: Tensor, tokens: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        return self._rng.along(probs, tokens, [size * mine for size, mine in zip(sizes, self._rows, strict=True)])

    def race(self, probs: Tensor, tokens: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        return self._rng.race(probs, tokens, [size * mine for size, mine in zip(sizes, self._rows, strict=True)])

    def pick(self, probs: Tensor, active: Sequence[bool]) -> list[int]:
        return self._rng.pick(probs, [one and mine for one, mine in zip(active, self._rows, strict=True)])

    def peek(self, count: int) -> Tensor:
        return self._rng.peek(count)

    def spend(self, counts: Sequence[int]) -> None:
        self._rng.spend([count * mine for count, mine in zip(counts, self._rows, strict=True)])
