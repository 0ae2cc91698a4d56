"""Acceptance rules that break the promise, one that says so and one that does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from foretoken.accept.base import chain_law
from foretoken.accept.rejection import Rejection
from foretoken.rng import Dice
from foretoken.types import Draft, Verdict


class Lossy(Rejection):
    """Keep everything that was drafted."""

    lossless: ClassVar[bool] = False

    def accept(self, draft: Draft, p: Tensor, rng: Dice) -> Verdict:
        law = chain_law(draft, p)
        return super().accept(draft, torch.where(law.sum(-1, keepdim=True) > 0, law, p), rng)


class Liar(Lossy):
    """Keep everything that was drafted, and claim that this is lossless."""

    lossless: ClassVar[bool] = True

    def match(self, draft: Draft, said: Sequence[Sequence[int]], mass: Sequence[Sequence[float]]) -> Verdict:
        chains = zip(draft.tokens.tolist(), draft.sizes, said, strict=True)
        return super().match(draft, [[*tokens[1:size], *own[size - 1 :]] for tokens, size, own in chains], mass)
