"""Station 2b: how many children a leaf gets once the length policy lets it grow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from foretoken.types import Frontier


class TreeShape(ABC):
    """Gives the number of children per node.

    Attributes:
        max_children: the most it ever gives; drafters and rules that cannot follow are refused.
    """

    max_children: ClassVar[int]

    @dataclass(frozen=True, slots=True)
    class Config:
        """No options."""

    def __init__(self, config: Config | None = None) -> None:  # noqa: B027 - a chain has nothing to keep
        """A shape with its options."""

    @abstractmethod
    def children(self, frontier: Frontier) -> Sequence[Sequence[int]]:
        """Number of children each leaf would get, by row and leaf."""
