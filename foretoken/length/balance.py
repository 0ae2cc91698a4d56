"""Whether a request's drafting pays by the time its steps took, and when it rests."""

from __future__ import annotations

from foretoken.length.floor import Floor
from foretoken.length.record import START, Record, believed
from foretoken.prices import Prices

DEAREST = 0.3  # of a plain step is what asking in vain is taken to cost at most
CLOSE = 0.78  # of the time of plain decoding; below that, there is no doubt


class Balance:
    """Time that steps of one request took and the tokens they gave; where those did not pay, it rests.

    Args:
        overall: of all requests like it.
        floor: says whether all its steps had better read many tokens; none never does.

    Attributes:
        rest: steps to decode plainly before drafting is tried again.
        resting: whether the coming step is one of them.
        tries: whether the coming draft is the first of all, or after a rest.
    """

    __slots__ = ("_floor", "_overall", "_own", "_rested", "_worst", "rest", "resting", "tries")

    def __init__(self, overall: Record, floor: Floor | None) -> None:
        self._own, self._overall, self._floor = Record(), overall, floor or Floor()
        self._own.steps = START * overall.steps / overall.tokens
        self.rest, self.resting, self.tries = 0 if overall.pays else overall.rest, False, True
        self._rested = 0  # steps of this rest
        self._worst = 1.0  # plain steps that the worst step lost

    @property
    def close(self) -> bool:
        """Whether drafting is hardly faster than plain decoding, if at all."""
        return self._own.steps > CLOSE * self._own.tokens

    def surely_pays(self, lost: int) -> bool:
        """Whether drafting pays even if as many more steps as that all were like the worst one."""
        return self._own.tokens - self._own.steps > lost * self._worst

    @property
    def least(self) -> int:
        """Tokens that the coming step reads at least, if it is of this request alone."""
        return 1 if self.resting else self._floor.least

    def begin(self) -> bool:
        """A step begins; says whether it is one of a rest."""
        if self.rest > 0:
            self.pass_by(1)
            self.resting = self.tries = True
        elif self.resting:
            self.resting = False
            self._wake(self._rested)
            self._rested = 0
        return self.resting

    def pass_by(self, steps: int) -> None:
        """So many steps of a rest are over."""
        self.rest -= steps
        self._rested += steps
        self._overall.rest = self.rest

    def _wake(self, rested: int) -> None:
        """A rest of so many steps is over: those before it say less."""
        self._own.fade(rested)

    def drafted(self, should_s: float, count: int, tokens: int, last_s: float | None, price: Prices) -> None:
        """Count a step that drafted, and rest where it did not pay.

        Args:
            should_s: seconds that it should have taken, as costs have it.
            count: candidates it had.
            tokens: that it gave.
            last_s: seconds that it took; None if not measured.
            price: of drafting.
        """
        tries, self.tries = self.tries, False
        took = self._count(should_s / price.plain_s, tokens, None if tries else last_s, price)
        lost = took + price.back_s(count) / price.plain_s - tokens
        if tries:
            lost += self._overall.tried(took, price)
        # A step that paid is followed by another, whatever those before it were.
        if lost > 0 and not self._own.pays:
            self._pause(lost, price)

    def waits(self, price: Prices) -> None:
        """Learn from a step for which nothing was known that was worth it: asking took time."""
        price = self._floored(price)
        should = price.read_s(0) / price.plain_s if price.least > 1 else 1.0
        lost = self._count(should + price.costs.asking, 1, price.costs.last_s, price) - 1
        if lost > 0 and not self._overall.pays:
            self._pause(min(lost, DEAREST), price)

    def _floored(self, price: Prices) -> Prices:
        """The price of a step of this request, which may have to read many tokens."""
        least = self.least
        return price if price.rows > 1 or price.least == least else price._replace(least=least)

    def _token_s(self, price: Prices) -> float:
        """Seconds per token; plain decoding is always to be had."""
        return min(self._own.steps / self._own.tokens, 1.0) * price.plain_s

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
        self._worst = max(self._worst, took - tokens)
        self._own.add(took, tokens)
        self._overall.add(took, tokens)
        self._floor.count(tokens, took)
        return took
