"""One drafter after the other: what is known for nothing first, a draft model where that promises less."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from operator import mul
from typing import ClassVar

import torch
from torch import Tensor

from foretoken.costs import Costs
from foretoken.draft.base import Drafter
from foretoken.draft.known import Known, known_chain
from foretoken.length.base import Growth, LengthPolicy, Plan
from foretoken.shape.base import TreeShape
from foretoken.types import Batch, Draft, Drawn, Frontier, Row, Scores, Verdict

FADE = 0.9  # how much an older draft counts for


class Relay(Drafter):
    """Take a row's known candidates where as many of them should be accepted as of a draft, else let the model draft.

    Every row decides for itself, by what its own drafts brought lately, so its text depends on no neighbour. Where the
    length policy rests, known candidates are all there is.

    Args:
        first: knows its candidates.
        then: drafts by a model.

    Attributes:
        guess: tokens that a draft is taken to bring before one was made.

    Reference: Oliaro et al. 2024, SuffixDecoding, https://arxiv.org/abs/2411.04975, for the comparison.
    """

    guess: ClassVar[float] = 1.5
    drawn: ClassVar[Drawn] = Drawn.IID
    # What `then` does not provide is refused before the two are put together.
    provides: ClassVar[frozenset[str]] = frozenset({"prob", "logits", "hidden"})

    def __init__(self, first: Known, then: Drafter) -> None:
        self._first, self._then = first, then
        self._drawn: Draft | None = None  # the model's part of this step

    def start(self, rows: list[Row], hidden: list[Tensor | None]) -> None:
        self._first.start(rows, hidden)
        self._then.start(rows, hidden)

    def release(self, rows: Iterable[int]) -> None:
        gone = list(rows)
        self._first.release(gone)
        self._then.release(gone)

    def priced(self, costs: Costs) -> Costs:
        return self._then.priced(costs)

    def rest(self, batch: Batch, length: LengthPolicy, max_nodes: int) -> Draft:
        self._drawn = None
        return self._first.rest(batch, length, max_nodes)

    def draft(self, batch: Batch, length: LengthPolicy, shape: TreeShape, max_nodes: int) -> Draft:
        self._drawn = None
        picked: list[tuple[list[int], list[float]]] = [([], [])] * len(batch.rows)
        if not length.declines(batch):
            picked = self._first.pick(batch, length, max_nodes)
        known = [
            len(chances) > 0 and (length.resting(row) or sum(accumulate(chances, mul)) >= self._usual(row))
            for row, (_, chances) in zip(batch.rows, picked, strict=True)
        ]
        if all(known):
            return known_chain(batch, picked, min(length.least(batch), max_nodes))
        asked = Others(length, known) if any(known) else length
        self._drawn = self._then.draft(batch, asked, shape, max_nodes)
        if asked is length:
            return self._drawn
        kept = known_chain(batch, [both if mine else ([], []) for both, mine in zip(picked, known, strict=True)])
        return kept if self._drawn.tokens.shape[1] == 1 else joined(kept, self._drawn, known)

    def observe(self, batch: Batch, draft: Draft, verdict: Verdict, scores: Scores) -> None:
        self._first.observe(batch, draft, verdict, scores)
        if (drawn := self._drawn) is None:
            return
        if drawn.unseen is not None:  # then it is all there is, and has been looked at since
            drawn = draft
        self._then.observe(batch, drawn, verdict, scores)
        for row, size, accepted in zip(batch.rows, drawn.sizes, verdict.counts, strict=True):
            if size > 1:
                row.memory[self] = FADE * self._usual(row) + (1 - FADE) * accepted

    def _usual(self, row: Row) -> float:
        """Tokens that a draft of the model brings."""
        usual: float = row.memory.get(self, self.guess)
        return usual


class Others(LengthPolicy):
    """A length policy that is asked about some rows only.

    Args:
        length: the policy.
        but: per row. Whether it drafts nothing.
    """

    def __init__(self, length: LengthPolicy, but: Sequence[bool]) -> None:
        self._length, self.looks = length, length.looks
        self.look = length.look  # type: ignore[method-assign]  # one of its own would be captured in every step
        self._out = but

    def grow(self, frontier: Frontier, batch: Batch) -> Growth:
        asked = replace(frontier, active=self._unless_out(frontier.active))
        return self._unless_out(self._length.grow(asked, batch))

    def plan(self, batch: Batch, depth: int, least: int = 1) -> Plan:
        return self._length.plan(batch, depth, least)._replace(sure=0)

    def _unless_out(self, wanted: Growth) -> Growth:
        return [[more and not out for more in row] for row, out in zip(wanted, self._out, strict=True)]


def joined(known: Draft, drawn: Draft, looked_up: Sequence[bool]) -> Draft:
    """One draft of two, of which no row has candidates in both.

    Args:
        known: chains of point masses.
        drawn: chains.
        looked_up: rows of the first.
    """
    nodes = max(known.tokens.shape[1], drawn.tokens.shape[1])
    mine = torch.tensor([[size > 1] for size in known.sizes])
    tokens, parents = (
        torch.where(mine.to(theirs.device), padded(ours, nodes).to(theirs.device), padded(theirs, nodes))
        for ours, theirs in ((known.tokens, drawn.tokens), (known.parents, drawn.parents))
    )
    q = None
    if drawn.q is not None:
        q = torch.nn.functional.pad(drawn.q, (0, 0, 0, nodes - drawn.q.shape[1]))
        held, mine = known.at(q.device), mine.to(q.device)
        point = torch.zeros_like(q)
        point[:, : held.tokens.shape[1] - 1].scatter_(2, held.tokens[:, 1:, None], held.nodes[:, 1:, None].to(q))
        q = torch.where(mine[..., None], point, q)
    prob = None
    if known.prob and drawn.prob:
        prob = [a if one else b for one, a, b in zip(looked_up, known.prob, drawn.prob, strict=True)]
    sizes = list(map(max, known.sizes, drawn.sizes))
    points = [one or other for one, other in zip(looked_up, drawn.points or looked_up, strict=True)]
    return Draft(tokens, parents, sizes, q, drawn.drawn, prob, drawn.num_forwards, chain=True, points=points)


def padded(numbers: Tensor, nodes: int) -> Tensor:
    """[B, N] int64, with zeros after what is there, so that N is `nodes`."""
    return torch.nn.functional.pad(numbers, (0, nodes - numbers.shape[1]))
