"""Token-by-token rejection: the readable reference every other lossless rule is held against."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

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
from foretoken.rng import Dice, check_usable, land
from foretoken.types import Draft, Drawn, Verdict

AT_ONCE = 1 << 25  # probabilities for which what is left of each node's law fits in memory beside it


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
        another = type(self).accept is not Rejection.accept  # a rule made of this one
        if another or p.device.type == "cpu" or draft.q is None or p.numel() > AT_ONCE:
            return super().settle(draft, p, rng)
        return settle_at_once(draft, p, rng)


def settle_at_once(draft: Draft, p: Tensor, rng: Dice) -> tuple[Draft, Verdict]:
    """As `Rejection`, to the same random number, with one look at the device.

    The token after every possible number of accepted ones is drawn before anybody knows how many those are.

    Args:
        draft: chains with a law.
        p: [B, N, V] float. What the request asks to sample from after each node.
        rng: the rows' random numbers.
    """
    assert draft.q is not None, "a point mass is matched"
    nodes = p.shape[1]
    numbers, most = rng.peek(nodes + 1), [size - 1 for size in draft.sizes]
    # A coin for each candidate up to the first refused one, then the token; where nothing was drafted, q is 0.
    place = torch.arange(1, nodes + 1).minimum(torch.tensor(most)[:, None])  # [B, N]
    found = land(residual(p, draft.q.to(p)), numbers.gather(1, place)[..., None])
    near, (*chances, said, mass) = draft.near(*chain_chances(draft.at(p.device), p), *found)
    coins = zip(numbers.tolist(), ratios(draft.sizes, *chances), strict=True)
    counts = [leading(number < min(ratio, 1.0) for number, ratio in zip(row, own, strict=False)) for row, own in coins]
    rows = range(len(counts))
    check_usable([float(mass[b, counts[b]]) for b in rows])
    rng.spend([min(counts[b] + 1, most[b]) + 1 for b in rows])
    return near, chain_verdict(most, counts, [int(said[b, counts[b]]) for b in rows])
