"""One child per node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from foretoken.shape.base import TreeShape
from foretoken.types import Frontier


class Chain(TreeShape):
    """A single branch: the draft of classical speculative decoding."""

    max_children: ClassVar[int] = 1

    def children(self, frontier: Frontier) -> Sequence[Sequence[int]]:
        return [[1] * len(leaves) for leaves in frontier.depth]
