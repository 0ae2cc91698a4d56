"""Two more after a full acceptance, one less otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from foretoken.length.base import Growth, LengthPolicy, Plan, check_length, within
from foretoken.types import Batch, Draft, Frontier, Verdict


class Heuristic(LengthPolicy):
    """Per request, raise the candidate length by 2 when everything drafted was accepted, lower it by 1 when not.

    Reference: the schedule of `transformers`' assisted generation (2023). There the length is shared by all requests
    and survives them; here each request has its own.
    """

    looks = False

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options.

        Attributes:
            start: candidate length of a request's first step.
            least: never fewer than this.
            most: never more than this.
        """

        start: int = 5
        least: int = 1
        most: int = 20

        def __post_init__(self) -> None:
            check_length("least", self.least, 1)
            check_length("start", self.start, self.least)
            check_length("most", self.most, self.start)

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def grow(self, frontier: Frontier, batch: Batch) -> Growth:
        return within(frontier, self._lengths(batch))

    def plan(self, batch: Batch, depth: int, least: int = 1) -> Plan:
        return Plan(max(self._lengths(batch)) - depth)

    def _lengths(self, batch: Batch) -> list[int]:
        return [row.memory.get(self, self.config.start) for row in batch.rows]

    def observe(self, batch: Batch, draft: Draft, verdict: Verdict) -> None:
        for row, size, accepted in zip(batch.rows, draft.sizes, verdict.counts, strict=True):
            if size > 1:
                length = row.memory.get(self, self.config.start)
                length = length + 2 if accepted == size - 1 else length - 1
                row.memory[self] = min(max(length, self.config.least), self.config.most)
