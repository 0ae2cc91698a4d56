"""Drafter and target draw by the same numbers: what is said is what plain decoding says, whatever is drafted."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from foretoken.accept.base import AcceptanceRule
from foretoken.rng import Dice
from foretoken.types import Draft, Drawn, Verdict


class Coupled(AcceptanceRule):
    """Draw the target's own token after each node, and go on while it is the chain's, drawn by the same numbers.

    A seed then gives the text that plain decoding gives with it, whatever drafts, how far, and beside whom; in half
    precision, rounding may decide who wins, as it may decide a tie at temperature 0. A drafted token is kept with a
    probability of at least (1-d)/(1+d), where d is how far the laws are apart in total variation; rules that compare
    laws keep 1-d and more.

    Reference: Daliri, Musco and Suresh 2024, drafter-invariant speculative decoding, https://arxiv.org/abs/2408.07978.
    Cost per step: no forwards; [B, N, V] is divided by as many numbers (see `Race`), one argmax.
    """

    lossless: ClassVar[bool] = True
    handles: ClassVar[frozenset[Drawn]] = frozenset({Drawn.IID, Drawn.POINT})
    max_children: ClassVar[int | None] = 1
    coupled: ClassVar[bool] = True

    def accept(self, draft: Draft, p: Tensor, rng: Dice) -> Verdict:
        return self.settle(draft, p, rng)[1]

    def settle(self, draft: Draft, p: Tensor, rng: Dice) -> tuple[Draft, Verdict]:
        near, (said, most) = draft.near(*rng.race(p, draft.tokens, draft.sizes))
        return near, self.match(near, said.tolist(), most.tolist())
