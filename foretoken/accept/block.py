"""Block verification: judge a whole chain at once, never keeping less than token-by-token rejection on average."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from foretoken.accept.base import AcceptanceRule, chain_law, chain_ratios, chain_verdict, residual
from foretoken.rng import Rng
from foretoken.types import Draft, Drawn, Verdict


class Block(AcceptanceRule):
    """Keep the longest prefix that passes its own test, where a test weighs the joint ratio of the prefix.

    With w_i = min(1, w_{i-1} p_i/q_i) and s_i the mass of [w_i p_{i+1} - q_{i+1}]_+, prefix i passes with probability
    s_i / (s_i + 1 - w_i), the whole chain with w_K. Exact for any rule that ends the chain by looking at draft-side
    data only, the tokens included.

    Reference: Sun et al. 2024, Block Verification Accelerates Speculative Decoding, https://arxiv.org/abs/2403.10444.
    Cost per step: no forwards; one [B, N, V] difference is reduced.
    """

    lossless: ClassVar[bool] = True
    handles: ClassVar[frozenset[Drawn]] = frozenset({Drawn.IID, Drawn.POINT})
    max_children: ClassVar[int | None] = 1

    def accept(self, draft: Draft, p: Tensor, rng: Rng) -> Verdict:
        q = chain_law(draft, p)
        ratios = chain_ratios(draft, p)  # [B, N-1]
        weight = p.new_ones(p.shape[:2])  # [B, N]
        for i in range(ratios.shape[1]):
            weight[:, i + 1] = (weight[:, i] * ratios[:, i]).clamp_max(1)
        spare = (weight[..., None] * p - q).clamp_min(0).sum(-1)  # [B, N]
        below = spare + (1 - weight)
        # 0/0 means w = 1 and p = q: nothing can be gained by stopping here, so the prefix passes.
        passes = torch.where(below > 0, spare / below.clamp_min(torch.finfo(p.dtype).tiny), 1.0)
        steps = torch.arange(1, draft.tokens.shape[1], device=p.device)
        whole = steps == draft.sizes[:, None] - 1
        chance = torch.where(whole, weight[:, 1:], passes[:, 1:])
        passed = rng.coin(chance, draft.nodes[:, 1:])
        counts = (passed * steps).amax(-1) if len(steps) else torch.zeros_like(draft.sizes)
        row = torch.arange(len(counts), device=counts.device)
        law = residual(weight[row, counts, None] * p[row, counts], q[row, counts])
        return chain_verdict(draft, counts, draft.sizes - 1, law, rng)
