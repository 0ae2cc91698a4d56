"""Learned input embeddings that make a target say what comes later than next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from foretoken.models.bound import BoundNet


@dataclass(frozen=True, slots=True)
class LookAheadShape:
    """Size of the look-ahead tokens.

    Attributes:
        hidden_size: width of the target's input embedding.
        first: id of the first look-ahead token, the number of tokens that the target's own input embedding has.
        count: how many there are, which is how many tokens are drafted at most.
    """

    hidden_size: int
    first: int
    count: int = 4


class LookAhead(BoundNet):
    """Look-ahead tokens: the j-th, read j places after a text, makes the target say what comes j tokens after the next.

    They are rows behind the target's input embedding. No logits belong to them, so they are never sampled.

    Reference: Monea, Joulin and Grave 2023, PaSS, https://arxiv.org/abs/2311.13581.

    Attributes:
        embeddings: [E, H] float. The rows.
    """

    title: ClassVar[str] = "set of look-ahead embeddings"
    role: ClassVar[str] = "target"
    command: ClassVar[str] = "foretoken train pass"
    instead: ClassVar[str] = "choose another `--draft`"
    file_name: ClassVar[str] = "pass.safetensors"
    Shape: ClassVar[type[LookAheadShape]] = LookAheadShape

    def __init__(self, shape: LookAheadShape, target: str = "", card: dict[str, Any] | None = None) -> None:
        super().__init__(shape, target, card)
        self.embeddings = nn.Parameter(torch.zeros(shape.count, shape.hidden_size))

    def added_tokens(self) -> Tensor:
        return self.embeddings.detach()
