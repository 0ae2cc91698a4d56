"""Station 2a: how deep a draft goes, decided leaf by leaf while drafting."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor

from foretoken.errors import ConfigError
from foretoken.models.base import Enough, Stop
from foretoken.types import Batch, Continuation, Draft, Frontier, Row, Verdict

EVEN = 0.5  # chance
DEEPEST = 1 << 30  # no draft is
UNPRICED = 7  # tokens that a policy which asks no costs lets a device draw: with the root, eight are read
Growth = Sequence[Sequence[bool]]  # by row and leaf
T = TypeVar("T")


class Trained(Protocol):
    """Something trained for one model and kept in a file.

    Attributes:
        file_name: its name, in the draft's folder if it belongs to a draft.
    """

    file_name: ClassVar[str]

    @classmethod
    def load(cls, path: Path, model: str) -> Self:
        """Read it, for the model of that fingerprint.

        Raises:
            ModelError: the file is missing or broken, or was trained for another model.
        """
        ...

    def added_tokens(self) -> Tensor | None:
        """[E, H] float or None. Rows that the model's input embedding needs beyond its own."""
        ...

    def to(self, device: torch.device) -> Self:
        """Move it to the model's device."""
        ...


class Plan(NamedTuple):
    """What a policy knows of the tokens to come. Between `sure` and `most` it is asked about them one by one.

    Attributes:
        draw: how many to draw together, for drafters that can. A guess: what is drawn need not be kept.
        sure: depth down to which they are wanted whatever they are, in every row, if so many are drawn; `grow` is not
            asked about those.
        most: depth below which none is wanted in any row.
        enough: for a batch of one row, whether none is wanted after some of those that are drawn together. A drafter
            that can ask between two draws saves those that nobody wants, and `grow` is asked about none of them.
    """

    draw: int
    sure: int = 0
    most: int = DEEPEST
    enough: Enough | None = None


class LengthPolicy(ABC):
    """Says, before a token is drawn, whether drawing it is worth a draft forward.

    A policy sees draft-side data only, and a drawn token always reaches the acceptance rule, so every policy is
    lossless. What it remembers about a request lives in `row.memory`, so a row never depends on its neighbours.

    Attributes:
        needs: what the drafter must provide: "prob", "logits", "hidden".
        trained: what has to be trained for the draft before it helps, handed over on construction; None if nothing.
        needs_trained: whether it cannot do without.
        looks: whether it looks at what was drafted so far, rather than at depths alone; if not, nobody waits for it.
        uses_clock: whether it asks what drafting costs (`prices`), so that measured time decides.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    trained: ClassVar[type[Trained] | None] = None
    needs_trained: ClassVar[bool] = True
    looks: bool = True
    uses_clock: bool = False

    @dataclass(frozen=True, slots=True)
    class Config:
        """No options."""

    def rests(self, batch: Batch) -> bool:
        """Whether no row is worth drafting for in the coming step, which then is plain decoding at no extra cost.

        Asked once per step, before anything is drafted.
        """
        return False

    def idle(self, batch: Batch) -> int:
        """For how many steps after this one nobody needs to ask, since no row will want any candidate in them.

        Asked after a step that rested. Those steps count as asked about, and `observe` is told of the last of them
        only. Rows that join end them; then some are lost.
        """
        return 0

    def resting(self, row: Row) -> bool:
        """Whether this row is not drafted for in this step, whatever the others are; asked after `rests`."""
        return False

    def declines(self, batch: Batch) -> bool:
        """Whether no row wants any candidate in the coming step, not even one that is known for nothing.

        Asked at most once per step, before `choose`.
        """
        return False

    def least(self, batch: Batch) -> int:
        """Tokens of each row that the target shall read at least, where no more are known; asked after `choose`."""
        return 1

    def look(self, drawn: Continuation) -> Tensor | None:
        """What `grow` will ask of tokens beyond their probability, found where they are, on a device.

        It comes to the host together with the tokens, as `Frontier.seen`, so that deciding about them waits for
        nothing. On a CPU nobody asks, since there `grow` finds it when it needs it. It may be captured with the draft's
        forwards, so it depends on nothing else and looks at no value.

        Returns:
            [B, K, R] float or None. None if the probability is all it wants.
        """
        return None

    def stop(self, batch: Batch, most: int) -> Stop | None:
        """The same decisions for a device, which then draws by itself and waits for nobody; None leaves them to `grow`.

        Asked before `grow` is asked about the roots. Candidates are read by one target forward of a fixed size, so what
        a step may draw at most is said before, in `Stop.room`, and to read them costs nothing more.

        Args:
            batch: the rows.
            most: tokens that a device can draw in one go.
        """
        return None

    @abstractmethod
    def grow(self, frontier: Frontier, batch: Batch) -> Growth:
        """Decide which leaves get a child: whether to go deeper, by row and leaf. Those not active are ignored."""

    def plan(self, batch: Batch, depth: int, least: int = 1) -> Plan:
        """What is known of the tokens to come before they are drawn.

        Asked first of all, then wherever all that was drawn is wanted, and one more.

        Args:
            batch: the rows.
            depth: how deep the draft is.
            least: tokens that are drawn in any case.
        """
        return Plan(least)

    def choose(self, batch: Batch, known: Sequence[Sequence[float]]) -> list[int]:
        """How many candidates of each row to verify where all of them are known, and drawing them costs nothing.

        It is as if they were drawn one by one; a policy that needs more than their probabilities takes those that are
        all accepted more often than not.

        Args:
            batch: the rows.
            known: per row. The probability of each candidate, as `Frontier.prob` has it.
        """
        if self.needs - {"prob"}:
            return probable(known)
        counts, going = [0] * len(known), [len(chances) > 0 for chances in known]
        while any(going):
            newest = [chances[count - 1] if count else 1.0 for chances, count in zip(known, counts, strict=True)]
            wanted = self.grow(Frontier(single(counts), single(newest), single(going)), batch)
            going = [more and want for more, (want,) in zip(going, wanted, strict=True)]
            counts = [count + more for count, more in zip(counts, going, strict=True)]
            going = [more and count < len(chances) for more, count, chances in zip(going, counts, known, strict=True)]
        return counts

    def observe(self, batch: Batch, draft: Draft, verdict: Verdict) -> None:  # noqa: B027 - most policies do not learn
        """Learn from a finished step; called before finished rows leave the batch."""


def probable(known: Sequence[Sequence[float]]) -> list[int]:
    """How many candidates of each row are all accepted more often than not."""
    return [sum(survival >= EVEN for survival in accumulate(chances, mul)) for chances in known]


def leaves(frontier: Frontier) -> list[tuple[int, float]]:
    """Depth and probability of every row's only leaf."""
    return [(depth, prob) for (depth,), (prob,) in zip(frontier.depth, frontier.prob, strict=True)]


def single(values: Iterable[T]) -> list[list[T]]:
    """By row and leaf, where every row has one leaf."""
    return [[value] for value in values]


def within(frontier: Frontier, lengths: Iterable[int]) -> Growth:
    """As `LengthPolicy.grow` returns it. Which leaves are above their row's candidate length."""
    return [[depth < length for depth in depths] for depths, length in zip(frontier.depth, lengths, strict=True)]


def check_length(name: str, value: int, least: int = 0) -> None:
    """Raise ConfigError when a candidate length is below `least`."""
    if value < least:
        raise ConfigError(f"{name} cannot be {value}", hint=f"a candidate length is at least {least}")


def check_probability(name: str, value: float) -> None:
    """Raise ConfigError unless `value` is a probability."""
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} cannot be {value}", hint="it is a probability, in [0, 1]")
