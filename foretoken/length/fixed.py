"""Always the same candidate length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foretoken.length.base import Growth, LengthPolicy, Plan, check_length, within
from foretoken.types import Batch, Frontier


class Fixed(LengthPolicy):
    """Draft k tokens, whatever happens.

    Reference: Leviathan et al. 2023 (their gamma), https://arxiv.org/abs/2211.17192.
    """

    looks = False

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options.

        Attributes:
            k: candidate length; 0 is plain decoding.
        """

        k: int = 4

        def __post_init__(self) -> None:
            check_length("k", self.k)

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def grow(self, frontier: Frontier, batch: Batch) -> Growth:
        return within(frontier, [self.config.k] * len(batch.rows))

    def plan(self, batch: Batch, depth: int, least: int = 1) -> Plan:
        return Plan(self.config.k - depth, self.config.k, self.config.k)

    def choose(self, batch: Batch, known: Sequence[Sequence[float]]) -> list[int]:
        return [min(self.config.k, len(chances)) for chances in known]
