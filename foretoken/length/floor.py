"""How many tokens a step reads at least: where a change of width is dear, all steps may as well read many."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import mul

from foretoken.curves import CALM, is_time
from foretoken.length.record import Yield
from foretoken.prices import Prices

FADE, SLOW = 0.98, 0.99  # how much a step still counts when the next one is done: for texts, for what corrects them
START = 8.0  # steps that a first guess counts for: each brings a token in the time of a plain one
BACK = START * (1 - SLOW)  # leads back to it, little by little
MOST = 8  # tokens that every step may have to read
MARGIN = 1.03  # how much faster that must be than what is done now


class Floor:
    """Weighs steps that all read so many tokens, drafted or not, against steps that read what they need.

    A target that has a graph for every width, with weights of its own, pays twice for a wide step among plain ones:
    neither finds its weights in the caches. Steps of one width find them there. Candidates that are known for nothing
    say what they would bring at every width, verified or not, so nothing has to be tried. What steps really brought and
    took corrects that, for those of a floor and for others apart, and is forgotten while nothing like it is done.

    Attributes:
        least: tokens to read in every step, at least; 1 is no floor.
    """

    __slots__ = ("_costs", "_count", "_foreseen", "_real", "_since", "_unread", "_usual", "_yields", "least")

    def __init__(self) -> None:
        self.least, self._count, self._since, self._usual = 1, 0, 0, 1.0
        self._costs: list[tuple[int, float, float]] = []  # by width, the widest first: among its like, among plain ones
        self._yields: dict[int, Yield] = {1: Yield(START, START, FADE)}  # by floor, of all candidates
        # Of steps that were made, those without a floor and those with one: what they should have brought, and did.
        self._foreseen, self._real = ((Yield(START, START, SLOW), Yield(START, START, SLOW)) for _ in range(2))
        self._unread: list[tuple[Sequence[float], tuple[float, int] | None]] = []  # steps not learnt from yet

    def weigh(self, chances: Sequence[float], price: Prices) -> None:
        """Learn from the candidates of a step, and decide.

        Args:
            chances: that each is accepted if those before it are.
            price: of verifying them.
        """
        self._count += 1
        if is_time(self._count):  # what is done in a row takes less time than one by one
            for one, brought in self._unread:
                self._learn(one, brought)
            self._unread.clear()
            self._decide(price)
        self._unread.append((chances, None))

    def count(self, tokens: int, steps: float) -> None:
        """Learn what the step brought, and took in plain steps; the first ones after a change find cold caches."""
        self._since += 1
        if self._unread and self._since > CALM:
            self._unread[-1] = self._unread[-1][0], (steps, tokens)

    def helps(self) -> bool:
        """Whether a floor is faster than plain decoding where drafting without one is not; then there is one."""
        rates = self._rates()
        rates[1] = 1 / MARGIN
        self._take(rates)
        return self.least > 1

    def _learn(self, chances: Sequence[float], brought: tuple[float, int] | None) -> None:
        sums = list(accumulate(accumulate(chances, mul), initial=1.0))
        last, usual, least = len(sums), self._usual, self.least
        most, wide = -1e9, (1.0, 1.0)  # what is best of all wider steps, if they are made now and then
        for width, among, apart in (*self._costs, (1, 1.0, 1.0)):
            tokens = sums[width - 1] if width < last else sums[-1]
            if width <= MOST:
                told = wide if width < last and most > tokens - usual * among else (among, tokens)
                self._yields[width].add(*told)
                if width == least and brought:
                    mine = least > 1
                    self._foreseen[mine].add(*told)
                    self._real[mine].add(*brought)
                    self._foreseen[not mine].add(BACK, BACK)
                    self._real[not mine].add(BACK, BACK)
            if (worth := tokens - usual * apart) > most:
                most, wide = worth, (apart, tokens)

    def _rates(self) -> dict[int, float]:
        """Tokens per plain step by floor."""
        true = [real.rate / foreseen.rate for real, foreseen in zip(self._real, self._foreseen, strict=True)]
        return {width: true[width > 1] * brought.rate for width, brought in self._yields.items()}

    def _decide(self, price: Prices) -> None:
        """Ask what steps cost, and find out anew which floor is the fastest."""
        costs, plain_s = price.costs, price.plain_s
        self._costs = []
        for width in reversed(costs.widths):
            among_s, apart_s = costs.steady_s(width), costs.verify_s(width)
            apart_s += costs.switch_s(width, after=1) + costs.switch_s(1, after=width)
            self._costs.append((width, among_s / plain_s, apart_s / plain_s))
            if width <= MOST and width not in self._yields:
                self._yields[width] = Yield(START, START, FADE)
        rates = self._rates()
        rates[1] = max(rates[1], 1.0)  # plain decoding is always to be had
        self._take(rates if self._costs else {1: 1.0})
        self._usual = max(rates.values())

    def _take(self, rates: dict[int, float]) -> None:
        fastest = max(rates, key=rates.__getitem__)
        if rates[fastest] > MARGIN * rates.get(self.least, 0.0) and fastest != self.least:
            self.least, self._since = fastest, 0
