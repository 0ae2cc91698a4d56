"""Token-by-token rejection: the readable reference every other lossless rule is held against."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from foretoken.accept.base import AcceptanceRule, chain_law_at, chain_ratios, chain_verdict, plain_verdict, residual
from foretoken.rng import Rng
from foretoken.types import Draft, Drawn, Verdict


class Rejection(AcceptanceRule):
    """Keep each drafted token with probability min(1, p/q); after the first rejection draw from what q left over.

    Reference: Leviathan et al. 2023, https://arxiv.org/abs/2211.17192; Chen et al. 2023,
    https://arxiv.org/abs/2302.01318. Cost per step: no forwards; [B, N, V] is gathered from, one [B, V] is built.
    """

    lossless: ClassVar[bool] = True
    handles: ClassVar[frozenset[Drawn]] = frozenset({Drawn.IID, Drawn.POINT})
    max_children: ClassVar[int | None] = 1

    def accept(self, draft: Draft, p: Tensor, rng: Rng) -> Verdict:
        if draft.tokens.shape[1] == 1:
            return plain_verdict(draft, rng.pick(p[:, 0], torch.ones(len(p), dtype=torch.bool)))
        kept = rng.coin(chain_ratios(draft, p).clamp_max(1), draft.nodes[:, 1:]).cumprod(-1)
        counts = kept.sum(-1)
        tested = torch.minimum(counts + 1, draft.sizes - 1)
        row = torch.arange(len(counts), device=counts.device)
        return chain_verdict(draft, counts, tested, residual(p[row, counts], chain_law_at(draft, p, counts)), rng)
