"""One child per node."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from foretoken.shape.base import TreeShape
from foretoken.types import Frontier


class Chain(TreeShape):
    """A single branch: the draft of classical speculative decoding."""

    max_children: ClassVar[int] = 1

    def children(self, frontier: Frontier) -> Tensor:
        return torch.ones_like(frontier.depth)
