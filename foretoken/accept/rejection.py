"""Token-by-token rejection: the readable reference every other lossless rule is held against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from foretoken.accept.at_once import pays, settle_at_once
from foretoken.accept.base import (
    AcceptanceRule,
    after,
    chain_chances,
    chain_law_at,
    chain_ratios,
    chain_verdict,
    leading,
    ratios,
    residual,
)
from foretoken.rng import Dice
from foretoken.types import Draft, Drawn, Verdict


class Rejection(AcceptanceRule):
    """Keep each drafted token with probability min(1, p/q); after the first rejection draw from what q left over.

    Reference: Leviathan et al. 2023, https://arxiv.org/abs/2211.17192; Chen et al. 2023,
    https://arxiv.org/abs/2302.01318. Cost per step: no forwards; [B, N, V] is gathered from, one [B, V] is built.
    """

    lossless: ClassVar[bool] = True
    handles: ClassVar[frozenset[Drawn]] = frozenset({Drawn.IID, Drawn.POINT})
    max_children: ClassVar[int | None] = 1

    def accept(self, draft: Draft, p: Tensor, rng: Dice) -> Verdict:
        found = chain_ratios(draft, p)
        counts = [leading(rng.coin(b, min(ratio, 1.0)) for ratio in row) for b, row in enumerate(found)]
        most, law = [len(row) for row in found], after(p, counts)
        if counts != most:
            law = residual(law, chain_law_at(draft, p, counts))
        return chain_verdict(most, counts, rng.pick(law, [True] * len(p)))

    def settle(self, draft: Draft, p: Tensor, rng: Dice) -> tuple[Draft, Verdict]:
        if not pays(self, Rejection, draft, p):
            return super().settle(draft, p, rng)
        assert draft.q is not None
        # A coin for each candidate up to the first that is refused; where nothing was drafted, q is 0.
        coins = torch.arange(1, p.shape[1] + 1, device=draft.drafted.device).minimum(draft.drafted)
        chances = chain_chances(draft.at(p.device), p)
        left = residual(p, draft.q.to(p))
        near, counts, tokens = settle_at_once(draft, rng, left, coins, chances, _accepted)
        return near, chain_verdict([size - 1 for size in near.sizes], counts, tokens)


def _accepted(sizes: Sequence[int], numbers: list[list[float]], chances: Sequence[Tensor]) -> list[int]:
    """Tokens up to the first that is refused."""
    coins = zip(numbers, ratios(sizes, *(each.tolist() for each in chances)), strict=True)
    return [leading(number < min(ratio, 1.0) for number, ratio in zip(row, own, strict=False)) for row, own in coins]
