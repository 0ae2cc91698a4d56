"""Block verification: judge a whole chain at once, never keeping less than token-by-token rejection on average."""

from __future__ import annotations

from itertools import accumulate
from typing import ClassVar

import torch
from torch import Tensor

from foretoken.accept.base import AcceptanceRule, after, chain_law, chain_ratios, chain_verdict, residual
from foretoken.host import to_host
from foretoken.rng import Dice
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

    def accept(self, draft: Draft, p: Tensor, rng: Dice) -> Verdict:
        ratios = chain_ratios(draft, p)
        most = [len(row) for row in ratios]
        joint = [list(accumulate(row, lambda w, ratio: min(w * ratio, 1.0), initial=1.0)) for row in ratios]
        padded = [[*row, *[0.0] * (p.shape[1] - len(row))] for row in joint]
        weight = torch.tensor(padded, dtype=p.dtype).to(p.device, non_blocking=True)  # [B, N]
        q = chain_law(draft, p)  # [B, N, V]
        spare = to_host((weight[..., None] * p - q).clamp_min(0).sum(-1))[0].tolist()
        counts = [_longest(rng, b, *both) for b, both in enumerate(zip(joint, spare, strict=True))]
        law = residual(after(weight[..., None], counts) * after(p, counts), after(q, counts))
        return chain_verdict(most, counts, rng.pick(law, [True] * len(p)), most)


def _longest(rng: Dice, row: int, joint: list[float], spare: list[float]) -> int:
    """The longest prefix of a row's chain that passes its test, from the whole chain down."""
    whole = len(joint) - 1
    for i in range(whole, 0, -1):
        below = spare[i] + (1 - joint[i])
        # 0/0 means w = 1 and p = q: nothing can be gained by stopping here, so the prefix passes.
        passes = joint[i] if i == whole else spare[i] / below if below > 0 else 1.0
        if rng.coin(row, passes):
            return i
    return 0
