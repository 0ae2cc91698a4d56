"""An acceptance head that is asked where its answer may be worth the time."""

from __future__ import annotations

from collections import deque
from time import perf_counter

from foretoken.models.acceptance_head import AcceptanceHead
from foretoken.types import Frontier, Row

FEW = 3  # answers that tell what asking takes; the shortest of the last ones counts


class Hearing:
    """Asks a head about one row's token, unless that has taken longer than the answer can save.

    Args:
        head: the head.
    """

    def __init__(self, head: AcceptanceHead) -> None:
        self._head = head
        self._took: deque[float] = deque(maxlen=FEW)

    def pays(self, stake_s: float | None) -> bool:
        """Whether asking may save more time than it takes.

        Args:
            stake_s: seconds that an answer saves at most; None where the clock decides nothing.
        """
        return stake_s is None or len(self._took) < FEW or min(self._took) <= stake_s

    def ask(self, frontier: Frontier, b: int, row: Row, stake_s: float | None, prob: float) -> float | None:
        """What the head says of the token before the newest one; None where it says nothing, or is not asked.

        Args:
            frontier: one leaf per row.
            b: the row's place in it.
            row: the row.
            stake_s: as in `pays`.
            prob: the draft's probability of the token that is asked about.
        """
        if not self.pays(stake_s):
            return None
        begin = perf_counter()
        if (read := self._head.heard(frontier, slice(b, b + 1))) is None:
            return None
        said = self._head.judge(read, [prob], [row.request.sampling.temperature])[0]
        self._took.append(perf_counter() - begin)
        return said
