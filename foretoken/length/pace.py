"""What a request learns of its drafting, and what that says of the next candidate."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import accumulate
from operator import mul

from foretoken.curves import is_time
from foretoken.length.balance import Balance
from foretoken.length.base import Plan
from foretoken.length.belief import Belief, Experts, guess, log_odds
from foretoken.length.floor import Floor
from foretoken.length.outlook import Outlook
from foretoken.length.record import BREATH, FADE, PATIENCE, Record
from foretoken.models.base import Enough
from foretoken.prices import Prices

FEW = 8  # steps in which known candidates may be missed
RUN = 8  # candidates to draw at most before anything else is asked
OPEN = 1.25  # the head is asked where gain and cost are within this factor of each other


def nobody(stake_s: float | None, prob: float) -> None:
    """What is heard where there is no head."""


class Pace(Balance):
    """What one request has learnt: how likely its candidates are accepted, beside how fast its steps were.

    Args:
        temperature: of the request. The warmer, the less the draft's probability of a drawn token says of acceptance.
        overall: of all requests like it.
        known: whether candidates cost nothing to draw, and come with the probability that each is accepted.
        floor: says whether all its steps had better read many tokens; none never does.
        common: how likely candidates of all of them are accepted; None is a belief of its own alone.

    Attributes:
        belief: how likely a candidate is accepted, given the log-odds of the draft's probability of it; its own, or
            what is common to all.
        outlook: what going deeper costs and brings.
        chosen: known candidates that it chose when it was asked last.
    """

    __slots__ = (
        *("_accepted", "_before", "_experts", "_judged", "_known", "_lessons", "_misses", "_reader", "_scores"),
        *("_survival", "_uncounted", "_unread", "belief", "chosen", "outlook"),
    )

    def __init__(
        self,
        temperature: float,
        overall: Record,
        known: bool = False,
        floor: Floor | None = None,
        common: Belief | None = None,
    ) -> None:
        super().__init__(overall, floor)
        own = Belief(0.0, 1.0) if known else guess(temperature)
        self._experts, self.belief = Experts(own, common), common or own
        self._reader = Belief(0.0, 1.0)  # the head is calibrated, but not on this request
        self._scores: dict[int, float] = {}  # what the head said in this step
        self._before = 1.0  # the draft's probability of the candidate before
        self._accepted, self._judged = 3.0, 5.0  # a first guess, soon outweighed
        self._survival = 1.0  # chance that all candidates so far are accepted
        self._lessons = 0  # steps that drafted
        self._unread: list[tuple[Sequence[float], dict[int, float], int]] = []  # those not learnt from yet
        self._uncounted: list[tuple[int, int, int, float | None]] = []  # the same, of what they took
        self.outlook, self._known = Outlook(known, self._expect), known
        self.chosen = self._misses = 0

    def start(self, price: Prices) -> None:
        """A draft begins."""
        self._survival, self._scores, self.outlook.drawn = 1.0, {}, 0
        self.outlook.renew(price)

    def goes_on(
        self,
        depth: int,
        prob: float,
        price: Prices,
        read: Callable[[float | None, float], float | None] = nobody,
        drawn: int = 0,
        sure: Sequence[float] = (),
    ) -> bool:
        """Whether one more candidate is worth its cost.

        Args:
            depth: candidates so far.
            prob: the draft's probability of the newest one.
            price: of drafting.
            read: asks the head about the candidate before it, given the seconds that this can save, if they are
                measured, and its probability.
            drawn: candidates that are drawn already.
            sure: those of candidates that it was not asked about, after the last one and before the newest.
        """
        if depth == 0:
            self.start(price)
            if self.tries and price.costs.guessed and self.outlook.worth(0, price) <= 1:
                self.rest, self.resting = PATIENCE[0], True  # it would take luck
            return not self.resting
        self.outlook.drawn = drawn
        worth = self._survival * self.outlook.worth(depth, price)
        before = self._before
        for one in (*sure, prob):
            before, self._before = self._before, one
            chance = self.belief.given(one)
            self._survival *= chance
            if (worth := worth * chance) <= 1 / OPEN:  # it can only become less
                return False
        if (
            depth > 1
            and worth < OPEN
            and (said := read(self.stake_s(self.outlook.more_s(depth, price), price), before)) is not None
        ):
            score = self._scores[depth - 2] = log_odds(said)
            better = self._reader(score) / self.belief.given(before)
            self._survival *= better
            worth *= better
        return worth > 1

    def choose(self, probs: Sequence[float], price: Prices) -> int:
        """How many candidates to verify, where all of them are known and cost nothing to draw.

        As many as give most tokens per second, if that is more than usual: where a text can be looked up, it mostly can
        in the next step as well, so tokens that a longer step might bring are not lost. Else as many as pay most at the
        usual pace.

        Args:
            probs: the drafter's probability of each.
            price: of verifying them.
        """
        if self.resting:
            return 0
        if price.rows == 1:
            self._floor.weigh(probs, price)
        price = self._floored(price)
        if len(probs) < price.least:  # they are read in any case
            self.chosen = len(probs)
            return self.chosen
        self.outlook.renew(price)
        usual, survival, tokens, share = self._token_s(price), 1.0, 1.0, price.share
        here, *others = self.outlook.steps(0, price, len(probs))
        if usual * sum(accumulate(probs, mul)) < (others[0] - here) * share:
            return 0  # not even if they are as likely as that, which what was learnt only doubts
        fastest, least, best, most = 0, here, 0, usual - here
        for count, (prob, step_s) in enumerate(zip(probs, others, strict=False), 1):
            survival *= min(self.belief.given(prob), prob)  # what was counted is only ever doubted
            tokens += survival
            seconds = here + (step_s - here) * share
            if seconds < least * tokens:
                fastest, least = count, seconds / tokens
            if tokens * usual - seconds > most:
                best, most = count, tokens * usual - seconds
        self.chosen = fastest if least < usual else best
        return self.chosen

    def missed(self) -> None:
        """Known candidates were looked for in a step that a model drafted: after a few of those, ever more seldom."""
        self._misses += 1
        self.rest = min(max(self._misses - FEW, 0), BREATH)

    def likely(self, depth: int, price: Prices) -> int:
        """How many more candidates pay most, by what was accepted so far, out of a few."""
        return self.outlook.likely(depth, price, self._survival)

    def bounds(self, depth: int, drawn: int, price: Prices) -> tuple[int, int]:
        """As in `LengthPolicy`: down to where candidates cost nothing, and where none pays though all be accepted."""
        self.outlook.drawn = drawn
        return self.outlook.bounds(depth, price)

    def run(self, depth: int, most: int, price: Prices, ends: Collection[int]) -> Plan:
        """Candidates to draw in one go, until one of which `goes_on` would say that it is the last.

        Args:
            depth: candidates so far.
            most: of all of them.
            price: of drafting.
            ends: as in `Enough`.
        """
        outlook, last = self.outlook, min(depth + RUN, most)
        outlook.drawn = 0  # nothing is drawn in vain

        def rule(probs: Sequence[float]) -> bool:
            worth, given = self._survival * outlook.worth(depth + len(probs), price), self.belief.given
            for prob in probs:
                worth *= given(prob)
            return worth <= 1

        plan = Plan(last - depth, last, most, Enough(outlook.asks(depth, last, price), rule, ends))
        if not depth:
            outlook.runs[price.costs.after] = plan
        return plan

    @staticmethod
    def stake_s(more_s: float, price: Prices) -> float | None:
        """Seconds that a wrong decision about so many costs, which is a close one; None where nothing is measured."""
        return None if price.costs.last_s is None else (OPEN - 1) * more_s

    def _expect(self, price: Prices) -> tuple[float, float]:
        """Chance that a candidate is accepted, and seconds per token."""
        return self._accepted / self._judged, self._token_s(price)

    def observe(self, probs: Sequence[float], accepted: int, price: Prices) -> None:
        """Learn from a step that drafted.

        Args:
            probs: the draft's probability of each candidate.
            accepted: how many of them were kept.
            price: of drafting.
        """
        self._lessons += 1
        self._misses = 0
        self._unread.append((probs, self._scores, accepted))
        self._uncounted.append((len(probs), self.outlook.drawn, accepted, price.costs.last_s))
        if fresh := is_time(self._lessons):  # of what is done in a row, the first is dear, as it is after a large model
            for lesson in self._unread:
                self._learn(*lesson)
            self._unread.clear()
            self.outlook.forget()
        # Where drafting clearly pays, one step more changes nothing.
        sure = price.costs.last_s is not None and self.surely_pays(len(self._uncounted))
        if fresh or self.tries or self._known or not sure:
            price = self._floored(price)
            for count, drawn, kept, last_s in self._uncounted:
                self.outlook.drawn = drawn
                self.drafted(self.outlook.steps(count, price, 0)[0], count, kept + 1, last_s, price)
            self._uncounted.clear()

    def _learn(self, probs: Sequence[float], scores: Mapping[int, float], accepted: int) -> None:
        """Learn how likely candidates are accepted from a step that drafted."""
        # Nothing after the first rejection was judged on its own merit.
        for index, prob in enumerate(probs[: accepted + 1]):
            score, outcome = log_odds(prob), index < accepted
            self.belief = self._experts.observe(score, outcome)
            if index in scores:
                self._reader.observe(scores[index], outcome)
        self._fade()
        self._accepted += accepted
        self._judged += min(accepted + 1, len(probs))

    def _wake(self, rested: int) -> None:
        super()._wake(rested)
        self._fade(rested)

    def _fade(self, steps: int = 1) -> None:
        kept = FADE**steps
        self._accepted, self._judged = kept * self._accepted, kept * self._judged
