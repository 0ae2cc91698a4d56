"""Whether drafting was worth its time, and for how long to leave it alone where it was not."""

from __future__ import annotations

from collections import deque
from math import ceil
from statistics import median

from foretoken.prices import Prices

FADE = 0.99  # how much a step still counts when the next one is done
START = 12.0  # tokens the first guess of a pace counts for
HOPE = 0.8  # the first guess: drafting takes this much of the time of plain decoding
REGRET = 0.01  # of the time may be lost on trying again where drafting does not pay
HARD = 0.05  # where it pays for other texts
BREATH = 32  # steps of a rest at most, there
PATIENCE = (128, 4)  # steps of the first rest at most, and how many times as long each may be as the one before it
EAGER = (16, 2)  # the same where a try costs little
TRIES = 5  # that tell what trying costs
TOLD = 3  # of them, before which a hiccup may be all there is
STILL = 4.0  # times what a step should take: no step is that slow, so something else was done, such as a capture


class Yield:
    """Tokens that steps gave, and the time they took in plain steps; old ones fade.

    Args:
        tokens: a first guess.
        steps: the same.
        fade: how much a step still counts when the next one is done.

    Attributes:
        tokens: what they gave.
        steps: time.
    """

    __slots__ = ("_fade", "steps", "tokens")

    def __init__(self, tokens: float, steps: float, fade: float = FADE) -> None:
        self.tokens, self.steps, self._fade = tokens, steps, fade

    def add(self, steps: float, tokens: float) -> None:
        """Count a step."""
        self.fade()
        self.steps += steps
        self.tokens += tokens

    def fade(self, steps: int = 1) -> None:
        """Old steps say less about the text as it moves on by so many."""
        kept = self._fade**steps
        self.steps, self.tokens = kept * self.steps, kept * self.tokens

    @property
    def rate(self) -> float:
        """Tokens per plain step."""
        return self.tokens / self.steps


class Record(Yield):
    """What steps that drafted gave and took.

    Args:
        patience: steps of the first rest at most, and how many times as long each may be as the one before it.

    Attributes:
        rest: steps to decode plainly, left over by a request that ended.
        losses: how many rests there were since drafting paid.
        extra: what trying at first or after a rest took more than such a step should, in plain steps: the drafter has
            to read all that was said meanwhile.
    """

    __slots__ = ("_patience", "extra", "losses", "rest")

    def __init__(self, patience: tuple[int, int] = PATIENCE) -> None:
        super().__init__(START, START * HOPE)
        self._patience = patience
        self.rest = self.losses = 0
        self.extra: deque[float] = deque(maxlen=TRIES)

    def add(self, steps: float, tokens: float) -> None:
        """Count a step."""
        super().add(steps, tokens)
        if self.pays:
            self.losses = 0

    def tried(self, took: float, price: Prices) -> float:
        """Count a try that should have taken `took` plain steps, and say how many more trying costs."""
        if price.costs.last_s is None:
            return 0.0
        self.extra.append(price.costs.last_s / price.plain_s - took)
        extra = max(median(self.extra), 0.0)
        if len(self.extra) >= TOLD:  # it is time that drafting took
            self.steps += extra
        return extra

    def pause(self, lost: float) -> int:
        """Steps of a rest after so many plain steps were lost.

        Where drafting pays as a rule, a few losses are bad luck or a hard passage. Where it does not, what was lost
        becomes a small part of the time; at first not for long, since a machine may have stood still.
        """
        if self.pays:
            return min(ceil(lost / HARD), BREATH)
        first, more = self._patience
        longest: int = first * more ** min(self.losses, 10)
        self.losses += 1
        return min(ceil(lost / REGRET), longest)

    @property
    def pays(self) -> bool:
        """Whether drafting was faster than plain decoding."""
        return self.steps <= self.tokens


def believed(took: float, should: float) -> float:
    """What a step is taken to have taken: what it did, unless the machine stood still."""
    return should if took > STILL * should else min(max(took, should / 2), 2 * should)
