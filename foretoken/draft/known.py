"""Drafters whose candidates are known for nothing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from foretoken.draft.base import Drafter, chain
from foretoken.length.base import LengthPolicy
from foretoken.shape.base import TreeShape
from foretoken.types import Batch, Draft, Drawn, Row


class Known(Drafter):
    """Knows its candidates before anything is spent on them, and how likely each is: a chain of point masses.

    So a length policy chooses among all of them at once, and what it drops was never drawn.
    """

    drawn: ClassVar[Drawn] = Drawn.POINT
    provides: ClassVar[frozenset[str]] = frozenset({"prob"})

    @abstractmethod
    def known(self, row: Row, most: int) -> tuple[list[int], list[float]]:
        """Candidates, at most so many, and the probability that each is accepted if those before it are.

        Nothing may follow an end-of-sequence token.
        """

    def pick(self, batch: Batch, length: LengthPolicy, max_nodes: int) -> list[tuple[list[int], list[float]]]:
        """Those candidates of every row that the length policy wants."""
        known = [self.known(row, min(row.room, max_nodes - 1)) for row in batch.rows]
        counts = length.choose(batch, [chances for _, chances in known])
        return [(path[:count], chances[:count]) for (path, chances), count in zip(known, counts, strict=True)]

    def draft(self, batch: Batch, length: LengthPolicy, shape: TreeShape, max_nodes: int) -> Draft:
        return self.rest(batch, length, max_nodes)

    def rest(self, batch: Batch, length: LengthPolicy, max_nodes: int) -> Draft:
        if length.declines(batch):
            return Draft.root_only(batch.roots)
        return known_chain(batch, self.pick(batch, length, max_nodes), min(length.least(batch), max_nodes))


def known_chain(batch: Batch, picked: Sequence[tuple[list[int], list[float]]], least: int = 1) -> Draft:
    """A chain per row, of candidates that are known with their probabilities.

    Args:
        batch: the rows.
        picked: candidates of each and their probabilities.
        least: nodes to have at least.
    """
    if least == 1 and not any(path for path, _ in picked):
        return Draft.root_only(batch.roots)
    prob = [[1.0, *chances] for _, chances in picked]
    return chain(batch, [path for path, _ in picked], None, prob, [0] * len(picked), least=least)
