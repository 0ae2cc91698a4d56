"""What going deeper costs a request and brings it, found once for as long as costs say the same."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import accumulate, pairwise, takewhile

from foretoken.costs import Costs
from foretoken.length.base import DEEPEST, Plan
from foretoken.prices import Prices

LITTLE_S = 6e-4  # that may be spent unasked: to ask, in caches full of other things, takes a tenth of it
AHEAD = 6  # candidates that a decision looks ahead, since verification may cost more in steps


class Outlook:
    """Gain and cost of the next few candidates, if all candidates so far are accepted.

    To find them takes longer than to decide by them, so what follows from them is remembered with them.

    Args:
        known: whether candidates cost nothing to draw.
        expect: chance that a candidate is accepted, and seconds per token.

    Attributes:
        drawn: candidates of this step that are drawn already.
        forward_s: seconds that drawing one candidate more takes, after others.
        runs: what was planned for a step's first candidates, by what was read before it.
    """

    __slots__ = (
        *("_asked", "_asks", "_bounds", "_expect", "_first", "_gains", "_hurdles", "_known", "_room", "_steps"),
        *("_worth", "drawn", "forward_s", "runs"),
    )

    def __init__(self, known: bool, expect: Callable[[Prices], tuple[float, float]]) -> None:
        self._known, self._expect, self.drawn, self.forward_s = known, expect, 0, 0.0
        self._asked: tuple[Costs, int, int, int] | None = None  # who said what steps cost, and when
        # Seconds of a step by candidates, by those drawn in any case, and what was read before.
        self._steps: dict[tuple[int, int | None], list[float]] = {}
        self._bounds: dict[tuple[int, int, int | None], tuple[int, int]] = {}  # by depth, those drawn, and the same
        self._worth: dict[tuple[int, int, int | None, int], float] = {}  # and by rows that pay
        self._first: dict[int | None, int] = {}  # candidates that pay most at first
        self._gains: list[float] = []  # of the next few candidates
        self._hurdles: list[float] = []  # by candidates so far, from the first one on
        self.runs: dict[int | None, Plan] = {}
        self._room: dict[int | None, int] = {}  # candidates that a device may draw
        self._asks: dict[tuple[int, int, int | None], list[int]] = {}  # by candidates, more of them, and the same

    def renew(self, price: Prices) -> None:
        """Forget what costs said if they say otherwise now, and all that follows from it."""
        if self._asked != (asked := (price.costs, price.costs.changes, price.rows, price.least)):
            self._asked, self._steps, self._asks, self.runs = asked, {}, {}, {}
            self.forward_s = 0.0 if self._known else price.draw_s(2) - price.draw_s(1)
            self.forget()

    def forget(self) -> None:
        """Forget what follows from expectations, which have changed."""
        self._gains, self._hurdles, self._room, self._first, self._bounds, self._worth = [], [], {}, {}, {}, {}

    def steps(self, depth: int, price: Prices, count: int = AHEAD) -> list[float]:
        """Seconds of this step with so many candidates, with one more, and so on: up to `count` more."""
        found = self._steps.setdefault((self.drawn, price.costs.after), [])
        while len(found) <= depth + count:
            drafted = len(found)
            drawn = 0 if self._known else max(drafted, self.drawn)
            found.append(price.draw_s(drawn) + price.read_s(drafted))
        return found[depth : depth + count + 1]

    def worth(self, depth: int, price: Prices) -> float:
        """Expected gain over cost of going on: the best of a few lengths."""
        what = depth, self.drawn, price.costs.after, price.drafting
        if what not in self._worth:
            self._worth[what] = max(gain / max(cost, 1e-12) for gain, cost in self._options(depth, price))
        return self._worth[what]

    def more_s(self, depth: int, price: Prices) -> float:
        """A row's part of the seconds that one more candidate takes."""
        here, more = self.steps(depth, price, 1)
        return (more - here) * price.share

    def likely(self, depth: int, price: Prices, survival: float) -> int:
        """How many more candidates pay most, out of a few.

        They are drawn together, so those after a candidate that may already be wrong cost as much, and bring less.

        Args:
            depth: candidates so far.
            price: of drafting.
            survival: chance that all of those are accepted.
        """
        if not depth and price.costs.after in self._first:
            return self._first[price.costs.after]
        profits = [survival * gain - cost for gain, cost in self._options(depth, price)]
        count = 1 + profits.index(max(profits))
        if not depth:
            self._first[price.costs.after] = count
        return count

    def bounds(self, depth: int, price: Prices) -> tuple[int, int]:
        """Down to which depth candidates that are drawn already cost nothing, since that many are read in any case.

        And below which depth none pays.
        """
        what = depth, self.drawn, price.costs.after
        if what not in self._bounds:
            _, first, *others = self.steps(depth, price)[: self.drawn - depth + 1]
            sure = depth + 1 + sum(1 for _ in takewhile(first.__ge__, others))
            self._bounds[what] = sure, DEEPEST if self.worth(sure, price) > 1 else sure
        return self._bounds[what]

    def asks(self, depth: int, last: int, price: Prices) -> Collection[int]:
        """After how many more candidates than so many to ask whether to go on: before little time becomes more.

        Args:
            depth: candidates so far.
            last: candidates to ask about at most.
            price: of drafting.
        """
        if (what := (depth, last, price.costs.after)) not in self._asks:
            asked_s, *steps = self.steps(depth + 1, price, last - depth)
            self._asks[what] = asks = list[int]()
            for more, step_s in enumerate(steps, 1):
                if step_s > asked_s + LITTLE_S:
                    asks.append(more)
                    asked_s = step_s
        return self._asks[what]

    def room(self, most: int, price: Prices) -> int:
        """How many candidates a device may draw: as many as pay most if each is drawn only where all before it hold.

        And what is read with them in any case.
        """
        if (after := price.costs.after) not in self._room:
            chance, token_s = self._expect(price)
            draws = enumerate(_draws_s(most, price))
            worth = [chance**drawn * (chance * token_s - draw_s) for drawn, draw_s in draws]
            reads = [price.read_s(drawn) * price.share for drawn in range(1, most + 1)]
            profits = [gain - read for gain, read in zip(accumulate(worth), reads, strict=True)]
            best = profits.index(max(profits))
            self._room[after] = best + sum(1 for _ in takewhile(reads[best].__ge__, reads[best:]))
        return self._room[after]

    def hurdles(self, count: int, price: Prices) -> list[float]:
        """How likely so many candidates, one and more, must all be accepted for another to be worth drawing it.

        To read them costs nothing more.
        """
        if len(self._hurdles) < count:
            gain = max(self._expected(price)[0], 1e-12)
            self._hurdles = [draw_s / gain for draw_s in _draws_s(count + 1, price)[1:]]
        return self._hurdles[:count]

    def _expected(self, price: Prices) -> list[float]:
        """What one candidate more, two and so on should gain, in seconds, if all before them are accepted."""
        if not self._gains:
            chance, token_s = self._expect(price)
            self._gains = [tokens * token_s for tokens in accumulate(chance**more for more in range(1, AHEAD + 1))]
        return self._gains

    def _options(self, depth: int, price: Prices) -> list[tuple[float, float]]:
        """Gain and cost of the next few lengths, in seconds."""
        share, (here, *others) = price.share, self.steps(depth, price)
        return [(gain, (step_s - here) * share) for gain, step_s in zip(self._expected(price), others, strict=False)]


def _draws_s(count: int, price: Prices) -> list[float]:
    """A row's part of the seconds that drawing the first candidate takes, the second, and so on."""
    draws = [price.draw_s(drawn) * price.share for drawn in range(count + 1)]
    return [more - so_far for so_far, more in pairwise(draws)]
