"""Token-by-token rejection: the readable reference every other lossless rule is held against."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from foretoken.accept.base import (
    AcceptanceRule,
    after,
    chain_law_at,
    chain_ratios,
    chain_verdict,
    leading,
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
        ratios = chain_ratios(draft, p)
        counts = [leading(rng.coin(b, min(ratio, 1.0)) for ratio in row) for b, row in enumerate(ratios)]
        most, law = [len(row) for row in ratios], after(p, counts)
        if counts != most:
            law = residual(law, chain_law_at(draft, p, counts))
        return chain_verdict(most, counts, rng.pick(law, [True] * len(p)))
