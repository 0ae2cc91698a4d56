"""What a request learns of its drafting, and what that says of the next candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from operator import mul

from foretoken.curves import is_time
from foretoken.length.belief import Belief, log_odds
from foretoken.length.floor import Floor
from foretoken.length.outlook import Outlook
from foretoken.length.record import FADE, START, Record, believed
from foretoken.prices import Prices

OPEN = 1.25  # the head is asked where gain and cost are within this factor of each other
ASKING = 0.1  # of a plain step is what asking takes at most
CLOSE = 0.7  # of the time of plain decoding; below that, there is no doubt


class Pace:
    """What one request has learnt: how likely its candidates are accepted, and how fast its drafting steps were.

    Args:
        temperature: of the request. The warmer, the less the draft's probability of a drawn token says of acceptance.
        overall: of all requests like it.
        known: whether candidates cost nothing to draw, and come with the probability that each is accepted.
        floor: says whether all its steps had better read many tokens; none never does.

    Attributes:
        belief: how likely a candidate is accepted, given the log-odds of the draft's probability of it.
        outlook: what going deeper costs and brings.
        rest: steps to decode plainly before drafting is tried again.
        resting: whether the coming step is one of them.
        chosen: known candidates that it chose in this step.
    """

    __slots__ = (
        *("_accepted", "_before", "_floor", "_judged", "_lessons", "_overall", "_own", "_reader", "_scores"),
        *("_survival", "_tries", "_unread", "belief", "chosen", "outlook", "rest", "resting"),
    )

    def __init__(self, temperature: float, overall: Record, known: bool = False, floor: Floor | None = None) -> None:
        self.belief = Belief(0.0, 1.0) if known else Belief(1.0, 1 - 0.75 * min(temperature, 1.0))
        self._reader = Belief(0.0, 1.0)  # the head is calibrated, but not on this request
        self._scores: dict[int, float] = {}  # what the head said in this step
        self._floor = floor or Floor()
        self._before = 1.0  # the draft's probability of the candidate before
        self._accepted, self._judged = 3.0, 5.0  # a first guess, soon outweighed
        self._survival = 1.0  # chance that all candidates so far are accepted
        self._lessons = 0  # steps that drafted
        self._unread: list[tuple[Sequence[float], dict[int, float], int]] = []  # those not learnt from yet
        self.outlook = Outlook(known, self._expect)
        self._own, self._overall = Record(), overall
        self._own.steps = START * overall.steps / overall.tokens
        self.rest, self.resting, self.chosen = 0 if overall.pays else overall.rest, False, 0
        self._tries = True  # the coming draft is the first of all, or after a rest

    @property
    def close(self) -> bool:
        """Whether drafting is hardly faster than plain decoding, if at all."""
        return self._own.steps > CLOSE * self._own.tokens

    @property
    def least(self) -> int:
        """Tokens that the coming step reads at least, if it is of this request alone."""
        return 1 if self.resting else self._floor.least

    def begin(self) -> bool:
        """A step begins; says whether it is one of a rest."""
        self.resting, self.chosen = self.rest > 0, 0
        if self.resting:
            self.skip()
        return self.resting

    def skip(self) -> None:
        """One plain step of a rest is over."""
        self.rest -= 1
        self._tries = True
        self._overall.rest = self.rest
        self._own.fade()
        self._fade()

    def start(self, price: Prices) -> None:
        """A draft begins."""
        self._survival, self._scores, self.outlook.drawn = 1.0, {}, 0
        self.outlook.renew(price)

    def goes_on(
        self,
        depth: int,
        prob: float,
        price: Prices,
        read: Callable[[float], float | None] = lambda prob: None,
        drawn: int = 0,
        sure: Sequence[float] = (),
    ) -> bool:
        """Whether one more candidate is worth its cost.

        Args:
            depth: candidates so far.
            prob: the draft's probability of the newest one.
            price: of drafting.
            read: asks the head about the candidate before it, given its probability.
            drawn: candidates that are drawn already.
            sure: those of candidates that it was not asked about, after the last one and before the newest.
        """
        if depth == 0:
            self.start(price)
            return not self.resting
        self.outlook.drawn = drawn
        for one in sure:
            self._survival *= self.belief(log_odds(one))
            self._before = one
        self._survival *= self.belief(log_odds(prob))
        worth = self._survival * self.outlook.worth(depth, price)
        before, self._before = self._before, prob
        if depth > 1 and 1 / OPEN < worth < OPEN and (said := read(before)) is not None:
            score = self._scores[depth - 2] = log_odds(said)
            better = self._reader(score) / self.belief(log_odds(before))
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
        self.outlook.renew(price)
        if len(probs) < price.least:  # they are read in any case
            self.chosen = len(probs)
            return self.chosen
        usual, survival, tokens, share = self._token_s(price), 1.0, 1.0, price.share
        here, *others = self.outlook.steps(0, price, len(probs))
        if usual * sum(accumulate(probs, mul)) < (others[0] - here) * share:
            return 0  # not even if they are as likely as that, which what was learnt only doubts
        fastest, least, best, most = 0, here, 0, usual - here
        for count, (prob, step_s) in enumerate(zip(probs, others, strict=False), 1):
            survival *= min(self.belief(log_odds(prob)), prob)  # what was counted is only ever doubted
            tokens += survival
            seconds = here + (step_s - here) * share
            if seconds < least * tokens:
                fastest, least = count, seconds / tokens
            if tokens * usual - seconds > most:
                best, most = count, tokens * usual - seconds
        self.chosen = fastest if least < usual else best
        return self.chosen

    def likely(self, depth: int, price: Prices) -> int:
        """How many more candidates pay most, by what was accepted so far, out of a few."""
        return self.outlook.likely(depth, price, self._survival)

    def bounds(self, depth: int, drawn: int, price: Prices) -> tuple[int, int]:
        """As in `LengthPolicy`: down to where candidates cost nothing, and where none pays though all be accepted."""
        self.outlook.drawn = drawn
        return self.outlook.bounds(depth, price)

    def _floored(self, price: Prices) -> Prices:
        """The price of a step of this request, which may have to read many tokens."""
        return price if price.rows > 1 else price._replace(least=self.least)

    def _token_s(self, price: Prices) -> float:
        """Seconds per token; plain decoding is always to be had."""
        return min(self._own.steps / self._own.tokens, 1.0) * price.plain_s

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
        price = self._floored(price)
        self._lessons += 1
        self._unread.append((probs, self._scores, accepted))
        if is_time(self._lessons):  # of what is done in a row, the first is dear, as everything is after a large model
            for lesson in self._unread:
                self._learn(*lesson)
            self._unread.clear()
            self.outlook.forget()
        tries, self._tries = self._tries, False
        last_s = None if tries else price.costs.last_s
        took = self._count(self.outlook.steps(len(probs), price, 0)[0] / price.plain_s, accepted + 1, last_s, price)
        lost = took + price.back_s(len(probs)) / price.plain_s - accepted - 1
        if tries:
            lost += self._overall.tried(took, price)
        # A step that paid is followed by another, whatever those before it were.
        if lost > 0 and not self._own.pays:
            self._pause(lost, price)

    def _learn(self, probs: Sequence[float], scores: Mapping[int, float], accepted: int) -> None:
        """Learn how likely candidates are accepted from a step that drafted."""
        # Nothing after the first rejection was judged on its own merit.
        for index, prob in enumerate(probs[: accepted + 1]):
            self.belief.observe(log_odds(prob), index < accepted)
            if index in scores:
                self._reader.observe(scores[index], index < accepted)
        self._fade()
        self._accepted += accepted
        self._judged += min(accepted + 1, len(probs))

    def waits(self, price: Prices) -> None:
        """Learn from a step for which nothing was known that was worth it: asking took time. Rests say nothing."""
        if self.resting:
            return
        price = self._floored(price)
        should = price.read_s(0) / price.plain_s if price.least > 1 else 1.0
        lost = self._count(should, 1, price.costs.last_s, price) - 1
        if lost > 0 and not self._overall.pays:
            self._pause(min(lost, ASKING), price)

    def _pause(self, lost: float, price: Prices) -> None:
        """Rest after so many plain steps were lost, unless a floor would not lose them, or knows that it does."""
        if price.rows > 1 or not self._floor.helps():
            self.rest = self._overall.pause(lost)

    def _count(self, should: float, tokens: int, last_s: float | None, price: Prices) -> float:
        """Count a step that should take so many plain steps, and say what it took.

        Args:
            should: as costs have it.
            tokens: that it gave.
            last_s: seconds that it really took; None if not measured.
            price: of drafting.
        """
        took = believed(should if last_s is None else last_s / price.plain_s, should)
        self._own.add(took, tokens)
        self._overall.add(took, tokens)
        self._floor.count(tokens, took)
        return took

    def _fade(self) -> None:
        self._accepted, self._judged = FADE * self._accepted, FADE * self._judged
