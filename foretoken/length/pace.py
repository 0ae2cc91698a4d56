"""What a request learns of its drafting, and what that says of the next candidate."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from math import ceil
from statistics import median

from foretoken.costs import Costs
from foretoken.length.belief import Belief, log_odds
from foretoken.prices import Prices

FADE = 0.99  # how much a step still counts when the next one is done
START = 12.0  # tokens the first guess of a pace counts for
AHEAD = 6  # candidates that a decision looks ahead, since verification may cost more in steps
OPEN = 2.0  # the head is asked where gain and cost are within this factor of each other
HOPE = 0.8  # the first guess: drafting takes this much of the time of plain decoding
REGRET = 0.01  # of the time may be lost on trying again where drafting does not pay
BREATH = 0.05  # where it pays for other texts
PATIENCE = 64  # a rest is twice as long at most, four times after the next loss, and so on
CLOSE = 0.7  # of the time of plain decoding; below that, there is no doubt
TRIES = 5  # that tell what trying costs


class Record:
    """Time of steps that drafted, in plain steps, against the tokens they gave; old ones fade.

    Attributes:
        steps: time.
        tokens: what it gave.
        rest: steps to decode plainly, left over by a request that ended.
        losses: how many rests there were since drafting paid.
        extra: what trying at first or after a rest took more than such a step should, in plain steps: the drafter has
            to read all that was said meanwhile.
    """

    __slots__ = ("extra", "losses", "rest", "steps", "tokens")

    def __init__(self) -> None:
        self.steps, self.tokens, self.rest, self.losses = START * HOPE, START, 0, 0  # a first guess
        self.extra: deque[float] = deque(maxlen=TRIES)

    def add(self, steps: float, tokens: float) -> None:
        """Count a step."""
        self.fade()
        self.steps += steps
        self.tokens += tokens
        if self.pays:
            self.losses = 0

    def fade(self) -> None:
        """Old steps say less about the text as it moves on."""
        self.steps, self.tokens = FADE * self.steps, FADE * self.tokens

    def tried(self, took: float, price: Prices) -> float:
        """What trying costs on top, in plain steps, after one more try that should have taken `took` of them."""
        if price.costs.last_s is None:
            return 0.0
        self.extra.append(price.costs.last_s / price.plain_s - took)
        return max(median(self.extra), 0.0)

    def pause(self, lost: float) -> int:
        """Steps of a rest after so many plain steps were lost.

        Where drafting pays as a rule, a few losses are bad luck or a hard passage. Where it does not, what was lost
        becomes a small part of the time; at first not for long, since a machine may have stood still.
        """
        if self.pays:
            return ceil(lost / BREATH)
        self.losses += 1
        return min(ceil(lost / REGRET), PATIENCE << min(self.losses, 20))

    @property
    def pays(self) -> bool:
        """Whether drafting was faster than plain decoding."""
        return self.steps <= self.tokens


class Pace:
    """What one request has learnt: how likely its candidates are accepted, and how fast its drafting steps were.

    Args:
        temperature: of the request. The warmer, the less the draft's probability of a drawn token says of acceptance.
        overall: of all requests like it.
        known: whether candidates cost nothing to draw, and come with the probability that each is accepted.

    Attributes:
        rest: steps to decode plainly before drafting is tried again.
    """

    __slots__ = (
        *("_accepted", "_asked", "_before", "_belief", "_drawn", "_gains", "_judged", "_known", "_overall", "_own"),
        *("_reader", "_scores", "_seconds", "_survival", "_tries", "rest"),
    )

    def __init__(self, temperature: float, overall: Record, known: bool = False) -> None:
        self._known = known
        self._belief = Belief(0.0, 1.0) if known else Belief(1.0, 1 - 0.75 * min(temperature, 1.0))
        self._reader = Belief(0.0, 1.0)  # the head is calibrated, but not on this request
        self._scores: dict[int, float] = {}  # what the head said in this step
        self._before = 1.0  # the draft's probability of the candidate before
        self._accepted, self._judged = 3.0, 5.0  # a first guess, soon outweighed
        self._survival = 1.0  # chance that all candidates so far are accepted
        self._gains: list[float] = []  # of the next few candidates in this step, in seconds
        self._seconds: dict[tuple[int, int], float] = {}  # of a step, by candidates and how many are drawn already
        self._asked: tuple[Costs, int, int] | None = None  # who said so, and when
        self._drawn = 0  # candidates of this step that are drawn already
        self._own, self._overall = Record(), overall
        self._own.steps = START * overall.steps / overall.tokens
        self.rest = 0 if overall.pays else overall.rest
        self._tries = True  # whether the coming draft is the first of all, or after a rest

    @property
    def close(self) -> bool:
        """Whether drafting is hardly faster than plain decoding, if at all."""
        return self._own.steps > CLOSE * self._own.tokens

    def skip(self) -> None:
        """One plain step of a rest is over."""
        self.rest -= 1
        self._tries = True
        self._overall.rest = self.rest
        self._own.fade()
        self._fade()

    def goes_on(
        self,
        depth: int,
        prob: float,
        price: Prices,
        read: Callable[[float], float | None] = lambda prob: None,
        drawn: int = 0,
    ) -> bool:
        """Whether one more candidate is worth its cost.

        Args:
            depth: candidates so far.
            prob: the draft's probability of the newest one.
            price: of drafting.
            read: asks the head about the candidate before it, given its probability.
            drawn: candidates that are drawn already.
        """
        self._drawn = drawn
        if depth == 0:
            self._survival, self._scores, self._gains = 1.0, {}, []
            self._refresh(price)
            if self.rest:  # while other rows draft
                self.skip()
                return False
            return True
        self._survival *= self._belief(log_odds(prob))
        worth = self._survival * self._worth(depth, price)
        before, self._before = self._before, prob
        if depth > 1 and 1 / OPEN < worth < OPEN and (said := read(before)) is not None:
            score = self._scores[depth - 2] = log_odds(said)
            better = self._reader(score) / self._belief(log_odds(before))
            self._survival *= better
            worth *= better
        return worth > 1

    def choose(self, probs: Sequence[float], price: Prices) -> int:
        """How many candidates pay most, where all of them are known and cost nothing to draw.

        Args:
            probs: the drafter's probability of each.
            price: of verifying them.
        """
        if self.rest:
            self.skip()
            return 0
        self._refresh(price)
        pace = self._token_s(price)
        here, survival, gain, best, most = self._step_s(0, price), 1.0, 0.0, 0, 0.0
        for count, prob in enumerate(probs, 1):
            survival *= self._belief(log_odds(prob))
            gain += survival * pace
            worth = gain - (self._step_s(count, price) - here) * price.share
            if worth > most:
                best, most = count, worth
        return best

    def likely(self, depth: int, price: Prices) -> int:
        """How many more candidates pay most, by what was accepted so far, out of a few."""
        gains = [gain - cost for gain, cost in self._options(depth, price)]
        return 1 + gains.index(max(gains))

    def _worth(self, depth: int, price: Prices) -> float:
        """Expected gain over cost of going on, if all candidates so far are accepted: the best of a few lengths."""
        best = 0.0
        for gain, cost in self._options(depth, price):
            best = max(best, gain / max(cost, 1e-12))
            if best * self._survival > OPEN:  # beyond doubt
                break
        return best

    def _options(self, depth: int, price: Prices) -> Iterator[tuple[float, float]]:
        """Gain and cost of the next few lengths, in seconds, if all candidates so far are accepted."""
        # What is the same for all decisions of a step is asked once in it: each takes its time before a token.
        if not self._gains:
            pace = self._token_s(price)
            chance = self._accepted / self._judged
            self._gains = [tokens * pace for tokens in accumulate(chance**more for more in range(1, AHEAD + 1))]
        here, share = self._step_s(depth, price), price.share
        for drafted, gain in enumerate(self._gains, depth + 1):
            yield gain, (self._step_s(drafted, price) - here) * share

    def _token_s(self, price: Prices) -> float:
        """Seconds per token; plain decoding is always to be had."""
        return min(self._own.steps / self._own.tokens, 1.0) * price.plain_s

    def _step_s(self, drafted: int, price: Prices) -> float:
        """Seconds of this step; what costs say is remembered, since asking takes longer than deciding."""
        what = drafted, self._drawn
        if what not in self._seconds:
            self._seconds[what] = price.read_s(drafted) if self._known else price.step_s(*what)
        return self._seconds[what]

    def _refresh(self, price: Prices) -> None:
        """Forget what costs said, if they say otherwise now."""
        if self._asked != (asked := (price.costs, price.costs.changes, price.rows)):
            self._asked, self._seconds = asked, {}

    def observe(self, probs: list[float], accepted: int, price: Prices) -> None:
        """Learn from a step that drafted.

        Args:
            probs: the draft's probability of each candidate.
            accepted: how many of them were kept.
            price: of drafting.
        """
        # Nothing after the first rejection was judged on its own merit.
        for index, prob in enumerate(probs[: accepted + 1]):
            self._belief.observe(log_odds(prob), index < accepted)
            if index in self._scores:
                self._reader.observe(self._scores[index], index < accepted)
        self._fade()
        self._accepted += accepted
        self._judged += min(accepted + 1, len(probs))
        took = self._step_s(len(probs), price) / price.plain_s
        self._own.add(took, accepted + 1)
        self._overall.add(took, accepted + 1)
        lost = took + price.back_s(len(probs)) / price.plain_s - accepted - 1
        if self._tries:
            self._tries = False
            lost += self._overall.tried(took, price)
        # A step that paid is followed by another, whatever those before it were.
        if lost > 0 and not self._own.pays:
            self.rest = self._overall.pause(lost)

    def _fade(self) -> None:
        self._accepted, self._judged = FADE * self._accepted, FADE * self._judged
