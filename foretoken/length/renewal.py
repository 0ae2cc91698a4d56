"""Draft on while the expected gain of one more candidate exceeds its cost; nothing to tune."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from foretoken.costs import GivenCosts
from foretoken.curves import CALM
from foretoken.errors import ConfigError
from foretoken.length.base import Growth, LengthPolicy, Plan, check_length, leaves, single
from foretoken.length.belief import Belief, chances, guess
from foretoken.length.floor import Floor
from foretoken.length.hearing import Hearing
from foretoken.length.pace import Pace, nobody
from foretoken.length.record import EAGER, PATIENCE, Record
from foretoken.models.acceptance_head import AcceptanceHead
from foretoken.models.base import Stop
from foretoken.prices import Prices, prices
from foretoken.types import Batch, Continuation, Draft, Frontier, Row, Verdict

OFTEN, SELDOM = 32, 1024  # steps after which plain decoding is timed anew
APART = 8  # steps that takes, and one more
SAME = 0.15  # of its time is no change
IDLE = 16  # steps of a rest that pass unasked; to ask takes some percent of a small model's step


class Renewal(LengthPolicy):
    """Go on while P(all candidates and the next one are accepted) x seconds per token exceeds the cost of the next one.

    The next one, or the next few together, where verifying one token more costs much and three more cost no more.

    The renewal-reward form of SpecDec++'s threshold, 1 - t_d / (seconds per token), with both times measured while
    running and the growing cost of verification added to t_d. Acceptance is estimated from the draft's own probability
    of each token, a relation that every request learns for itself, and believes once it foretells more than what others
    have shown (`Experts`). A draft that is drawn in one go ends by the same rule, asked in between where enough time is
    at stake (`Enough`). An acceptance head, where one is found beside the draft, says more of the tokens it has read;
    it is asked only where that can change the decision and may save more time than it takes, and not where a device
    decides by itself. When the steps that drafted were slower than plain decoding, the request decodes plainly until
    what was lost is a small part of its time, then tries again; after a few steps where drafting pays for the requests
    before it. What plain decoding takes is timed now and then in a few steps of it.

    Of candidates that are known for nothing it takes as many as give most tokens per second, and it looks for them ever
    more seldom where a model drafts step after step whatever they are. Whether they pay is told by all steps between
    two rests, since asking takes time in each of them and a wide step slows those after it. Where that is dear, and a
    text can be looked up often, all steps read as many tokens, drafted or not (`Floor`).

    `cost` fixes the times, and a sampled request that has to repeat (`Request.repeats`) is decided by typical ones, so
    that its lengths depend neither on the clock nor on its neighbours. As nobody knows what a try costs then, none is
    made with a target so small that it would take luck to pay.

    Reference: Huang, Guo and Wang 2024, SpecDec++, https://arxiv.org/abs/2405.19715, for the threshold; the renewal
    form is ours.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prob"})
    trained: ClassVar[type[AcceptanceHead]] = AcceptanceHead
    needs_trained: ClassVar[bool] = False

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options.

        Attributes:
            cost: cost of a draft forward in target forwards, verification being flat; none measures both.
            most: never more than this many tokens.
            file: the head's file; none takes the one beside the draft, if there is one.
        """

        cost: float | None = None
        most: int = 20
        file: str | None = None

        def __post_init__(self) -> None:
            check_length("most", self.most)
            if self.cost is not None and self.cost < 0:
                raise ConfigError(f"cost cannot be {self.cost}", hint="a draft forward over a target forward: 0.1")

    def __init__(self, config: Config | None = None, head: AcceptanceHead | None = None) -> None:
        self.config = config or self.Config()
        self._head, self._hearing = head, Hearing(head) if head else None
        self._given = None if self.config.cost is None else Prices(GivenCosts(self.config.cost))
        self.uses_clock = self._given is None
        self._apart = 0  # steps that are still to be decoded plainly, to time them
        self._patience, self._since, self._known_s = OFTEN, 0, 1.0
        self._floors: dict[float, Floor] = {}
        self._beliefs: dict[float, Belief] = {}
        self._overall: dict[tuple[float, bool], Record] = {}  # by temperature, and as `Pace` has `known`

    def rests(self, batch: Batch) -> bool:
        return self._sets_apart(batch) or self._rest(batch, known=False)

    def declines(self, batch: Batch) -> bool:
        return self._apart > 0 or self._rest(batch, known=True)

    def least(self, batch: Batch) -> int:
        if self._apart or len(batch.rows) > 1:
            return 1
        pace: Pace | None = batch.rows[0].memory.get((self, True))
        return 1 if pace is None else pace.least

    def idle(self, batch: Batch) -> int:
        paces: list[Pace | None] = [row.memory.get((self, known)) for row in batch.rows for known in (False, True)]
        steps = 0 if self._apart else min(IDLE, *(pace.rest if pace.resting else 0 for pace in paces if pace))
        for pace in paces if steps else ():
            if pace:
                pace.pass_by(steps)
        return steps

    def _rest(self, batch: Batch, known: bool) -> bool:
        """Whether all rows rest in this step, which is one step less for each."""
        resting = [self._pace(row, known).begin() for row in batch.rows]  # each of them begins its step
        return all(resting)

    def resting(self, row: Row) -> bool:
        return self._apart > 0 or self._pace(row).resting

    def look(self, drawn: Continuation) -> Tensor | None:
        return None if self._head is None or drawn.hidden is None else self._head.read(drawn.hidden)

    def grow(self, frontier: Frontier, batch: Batch) -> Growth:
        active = [may for (may,) in frontier.active]
        drafting = sum(active)
        sure = frontier.sure or [()] * len(active)
        return single(
            active[b]
            and depth < self.config.most
            and self._pace(row).goes_on(
                depth,
                prob,
                self._prices(row, batch, drafting),
                partial(self._hearing.ask, frontier, b, row) if self._hearing else nobody,
                0 if row.request.repeats else frontier.ready,  # neighbours decide whether tokens are drawn ahead
                sure[b],
            )
            for b, (row, (depth, prob)) in enumerate(zip(batch.rows, leaves(frontier), strict=True))
        )

    def plan(self, batch: Batch, depth: int, least: int = 1) -> Plan:
        rows, most = batch.rows, self.config.most
        paces = [(self._pace(row), self._prices(row, batch, len(rows))) for row in rows]
        if not depth:
            for pace, price in paces:
                pace.start(price)
        (row, *others), (pace, price) = rows, paces[0]
        alone = least == 1 and not (others or pace.resting)
        if alone and not depth and (planned := pace.outlook.runs.get(price.costs.after)):
            return planned
        if alone and depth < most and not (row.request.repeats or self._hears(pace, price)):
            return pace.run(depth, most, price, row.request.stop_token_ids)
        count = min(max(least, *(pace.likely(depth, price) for pace, price in paces)), most - depth)
        # Neighbours decide nothing for a row that repeats, and a row at rest wants none.
        if not count or any(row.request.repeats or self.resting(row) for row in rows):
            return Plan(count, 0, most)
        bounds = [pace.bounds(depth, depth + count, price) for pace, price in paces]
        return Plan(count, min(first for first, _ in bounds), min(most, max(last for _, last in bounds)))

    def stop(self, batch: Batch, most: int) -> Stop:
        """By what a row has learnt of the draft's probabilities; a head is not asked."""
        most, room, given = min(most, self.config.most), list[int](), list[list[float]]()
        for row in batch.rows:
            pace, price = self._pace(row), self._prices(row, batch, len(batch.rows))
            pace.start(price)
            room.append(pace.outlook.room(most, price))
            given.append([pace.belief.shift, pace.belief.scale, *pace.outlook.hurdles(most, price)])
        return Stop(room, torch.tensor(given, dtype=torch.float64), self._wants)

    @staticmethod
    def _wants(drawn: Continuation, given: Tensor) -> Tensor:
        survival = chances(given[:, :1], given[:, 1:2], drawn.prob).prod(1)
        return survival > given[:, 1 + drawn.prob.shape[1]]

    def choose(self, batch: Batch, known: Sequence[Sequence[float]]) -> list[int]:
        drafting = sum(map(bool, known))
        return [
            self._pace(row, known=True).choose(probs[: self.config.most], self._prices(row, batch, drafting))
            for row, probs in zip(batch.rows, known, strict=True)
        ]

    def observe(self, batch: Batch, draft: Draft, verdict: Verdict) -> None:
        for b, (row, size) in enumerate(zip(batch.rows, draft.sizes, strict=True)):
            pace: Pace | None = row.memory.get((self, True))
            if size == 1:
                # Rests say nothing.
                if pace and not pace.resting and (row.request.repeats or len(batch.rows) == 1) and not self._apart:
                    pace.waits(self._prices(row, batch, 1))
            elif draft.prob is not None:
                # What it chose may have been left for a draft, and there are drafts without forwards.
                if pace is None or pace.resting or not pace.chosen or draft.num_forwards[b]:
                    if pace and not pace.resting:
                        pace.missed()
                    pace = self._pace(row)
                pace.observe(draft.prob[b][1:size], verdict.counts[b], self._prices(row, batch, 1))

    def _hears(self, pace: Pace, price: Prices) -> bool:
        """Whether a head is asked even where a draft forward is all that is at stake."""
        return self._hearing is not None and self._hearing.pays(pace.stake_s(pace.outlook.forward_s, price))

    def _sets_apart(self, batch: Batch) -> bool:
        """Whether this step is decoded plainly to see what that takes: ever more seldom while it takes the same."""
        costs = batch.costs
        if len(batch.rows) > 1 or batch.rows[0].request.repeats:  # several are not timed apart
            self._apart = 0
            return False
        self._since += 1
        if self._apart:
            self._apart -= 1
            # Where the first of these steps that finds warm caches is as expected, the others will be, too.
            found = costs.last_s if self._apart and costs.last_s else costs.plain_s(1)
            same = abs(found / self._known_s - 1) < SAME
            if self._apart < APART - CALM and (same or not self._apart):
                self._patience = min(4 * self._patience, SELDOM) if same else OFTEN
                self._apart = self._since = 0
        elif min(costs.age, self._since) > self._patience and (costs.age > SELDOM or self._close(batch)):
            self._apart, self._known_s = APART, costs.plain_s(1)
        return self._apart > 0

    def _close(self, batch: Batch) -> bool:
        """Whether drafting is hardly faster than plain decoding, if at all, whatever the candidates come from."""
        paces = [row.memory.get((self, known)) for row in batch.rows for known in (False, True)]
        found = [pace.close for pace in paces if pace]
        return bool(found) and all(found)

    def _prices(self, row: Row, batch: Batch, drafting: int) -> Prices:
        return self._given or prices(row, batch, drafting)

    def _pace(self, row: Row, known: bool = False) -> Pace:
        if (key := (self, known)) not in row.memory:
            temperature = row.request.sampling.temperature
            # Whether drafting pays depends on the models more than on the request, so requests tell each other.
            shared = self._given is None and not row.request.repeats
            overall = Record(EAGER if known else PATIENCE)
            if shared:
                overall = self._overall.setdefault((temperature, known), overall)
            floor = self._floors.setdefault(temperature, Floor()) if shared and known else None
            common = self._beliefs.setdefault(temperature, guess(temperature)) if shared and not known else None
            row.memory[key] = Pace(temperature, overall, known, floor, common)
        pace: Pace = row.memory[key]
        return pace
