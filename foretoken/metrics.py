"""Counts -> rates. The only place where a published number is computed: count first, divide last."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from foretoken.types import Counts


def total(counts: Iterable[Counts]) -> Counts:
    """Sum over requests."""
    result = Counts()
    for one in counts:
        for f in fields(Counts):
            setattr(result, f.name, getattr(result, f.name) + getattr(one, f.name))
    return result


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of one or more requests, the time they took, and the rates that follow.

    Attributes:
        counts: summed counts.
        seconds: wall-clock time from the first prefill to the last token.
    """

    counts: Counts
    seconds: float

    @property
    def num_discarded(self) -> int:
        """Drafted nodes that were not emitted."""
        return self.counts.num_drafted - self.counts.num_accepted

    @property
    def block_efficiency(self) -> float:
        """Emitted tokens per target forward, recovered or bonus token included; 1.0 is plain decoding."""
        return _ratio(self.counts.num_tokens, self.counts.num_target_forwards)

    @property
    def acceptance_rate(self) -> float:
        """Accepted per tested node."""
        return _ratio(self.counts.num_accepted, self.counts.num_tested)

    @property
    def verification_rate(self) -> float:
        """Target forwards per emitted token."""
        return _ratio(self.counts.num_target_forwards, self.counts.num_tokens)

    @property
    def discard_rate(self) -> float:
        """Drafted and not emitted, per emitted token."""
        return _ratio(self.num_discarded, self.counts.num_tokens)

    @property
    def tokens_per_s(self) -> float:
        """Emitted tokens per second."""
        return _ratio(self.counts.num_tokens, self.seconds)

    def to_json(self) -> dict[str, int | float]:
        """Every count and rate, as published."""
        return {
            **{f.name: getattr(self.counts, f.name) for f in fields(Counts)},
            "num_discarded": self.num_discarded,
            "block_efficiency": self.block_efficiency,
            "acceptance_rate": self.acceptance_rate,
            "verification_rate": self.verification_rate,
            "discard_rate": self.discard_rate,
            "seconds": self.seconds,
            "tokens_per_s": self.tokens_per_s,
        }


def _ratio(above: float, below: float) -> float:
    return above / below if below else 0.0
