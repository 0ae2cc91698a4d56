"""Block verification: judge a whole chain at once, never keeping less than token-by-token rejection on average."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from foretoken.accept.at_once import pays, settle_at_once
from foretoken.accept.base import AcceptanceRule, after, chain_chances, chain_law, chain_ratios, chain_verdict
from foretoken.host import real, to_host
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
        # As lists these few numbers take less time than `joint_ratio`, which is for a device.
        joint = [list(accumulate(row, lambda w, ratio: min(w * ratio, 1.0), initial=1.0)) for row in ratios]
        padded = [[*row, *[0.0] * (p.shape[1] - len(row))] for row in joint]
        weight = real(padded, p.dtype).to(p.device, non_blocking=True)  # [B, N]
        left, spare = _left(weight, p, chain_law(draft, p))
        shares = to_host(spare)[0].tolist()
        counts = [_longest(partial(rng.coin, b), *both) for b, both in enumerate(zip(joint, shares, strict=True))]
        law = after(left, counts) / after(spare[..., None], counts)
        if not all(own[count] for own, count in zip(shares, counts, strict=True)):  # by rounding
            law = torch.where(law.isfinite(), law, after(p, counts))
        return chain_verdict(most, counts, rng.pick(law, [True] * len(p)), most)

    def settle(self, draft: Draft, p: Tensor, rng: Dice) -> tuple[Draft, Verdict]:
        if not pays(self, Block, draft, p):
            return super().settle(draft, p, rng)
        assert draft.q is not None
        # A coin for each prefix from the whole chain down to the one that passes.
        coins = (draft.drafted + 1 - torch.arange(p.shape[1], device=draft.drafted.device)).clamp_min(0)
        weight = joint_ratio(*chain_chances(draft.at(p.device), p))
        left, spare = _left(weight.to(p), p, draft.q.to(p))
        left = torch.where(spare[..., None] > 0, left, p)
        seen = weight, spare
        near, counts, tokens = settle_at_once(draft, rng, left, coins.minimum(draft.drafted), seen, _accepted)
        most = [size - 1 for size in near.sizes]
        return near, chain_verdict(most, counts, tokens, most)


def _left(weight: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """What the next token is drawn from where the chain ends with a node, [B, N, V], and what that sums to, [B, N].

    No chain ends where nothing is left, but for rounding, and then p is as good.
    """
    left = (weight[..., None] * p).sub_(q).clamp_min_(0)
    return left, left.sum(-1)


def joint_ratio(p: Tensor, q: Tensor) -> Tensor:
    """min(1, w p/q) from token to token, without a loop: p/q multiplied, over the largest such product on the way.

    Args:
        p: [B, K] float. What the target gives each token.
        q: [B, K] float. What its law gives it; 0 where there is none.

    Returns:
        [B, K+1] float64. w after each node.
    """
    ratio = torch.where(q > 0, p.double() / q, 0.0).log().cumsum(-1)
    return pad((ratio - ratio.cummax(-1).values.clamp_min(0)).exp(), (1, 0), value=1.0)


def _accepted(sizes: Sequence[int], numbers: list[list[float]], seen: Sequence[Tensor]) -> list[int]:
    """Tokens of the longest prefix that passes, given the coins to toss."""
    rows = zip(sizes, numbers, *(each.tolist() for each in seen), strict=True)
    return [_longest(partial(_toss, iter(coins)), joint[:size], spare) for size, coins, joint, spare in rows]


def _toss(coins: Iterator[float], prob: float) -> bool:
    return next(coins) < prob


def _longest(coin: Callable[[float], bool], joint: list[float], spare: list[float]) -> int:
    """The longest prefix of a row's chain that passes its test, from the whole chain down."""
    whole = len(joint) - 1
    for i in range(whole, 0, -1):
        passes = joint[i]
        if i < whole:
            below = spare[i] + (1 - joint[i])
            # 0/0 means w = 1 and p = q: nothing can be gained by stopping here, so the prefix passes.
            passes = spare[i] / below if below > 0 else 1.0
        if coin(passes):
            return i
    return 0
