"""What steps cost on this machine. Policies that decide by speed ask, through `prices`; nothing else depends on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median

from foretoken.curves import CALM, RECENT, Drafting, Drifting, Steady, interpolate, is_time

WIDE = 16  # tokens: what is read in place of fewer is told apart


class Costs(ABC):
    """Seconds of what a step is made of.

    Args:
        switch: what a step costs more whose target forward has another width than the last one.
        width: tokens that the target really reads for so many, which may be padded; none takes them as they are.

    Attributes:
        last_s: seconds of the last step, where they are measured.
        changes: how often the answers have changed but for `after`; while both stay the same, they may be remembered.
        after: width of the last step, where the next one's time depends on it.
        age: steps since plain ones were timed by themselves, of a single row.
        typical: what is told to those whom the clock must not decide for; None if nothing is known.
        asking: plain steps that it takes to look for candidates where none is found, if that is not measured with them.
        guessed: whether nothing is known of this machine, so that what a try would cost is not known either.
    """

    last_s: float | None = None
    changes: int = 0
    after: int | None = None
    age: int = 0
    typical: Costs | None = None
    asking: float = 0.0
    guessed: bool = False

    def __init__(self, switch: float = 0.0, width: Callable[[int], int] | None = None) -> None:
        self._switch, self._width = switch, width or (lambda tokens: tokens)
        self._switches = switch > 0
        self._last: int | None = None

    @property
    def widths(self) -> tuple[int, ...]:
        """Tokens that the target reads in place of a few, if changing from one number to another costs anything."""
        widths = {self._width(tokens) for tokens in range(2, WIDE + 1)} - {self._width(1)}
        return tuple(sorted(widths)) if self._switches else ()

    @abstractmethod
    def draft_s(self, rows: int, forwards: int = 1) -> float:
        """Seconds of so many draft forwards in a row, each reading one token of each of `rows` rows."""

    @abstractmethod
    def verify_s(self, tokens: int) -> float:
        """Seconds of everything in a step but drafting, when the target reads `tokens` tokens, all rows together."""

    def switch_s(self, tokens: int, after: int | None = None) -> float:
        """Seconds on top if a step reads so many tokens, because the one before it read another width.

        Args:
            tokens: read in the step.
            after: tokens read in the one before it; None is the last step that was observed.
        """
        before = self._last if after is None else self._width(after)
        return 0.0 if before in (None, self._width(tokens)) else self._switch

    def plain_s(self, rows: int) -> float:
        """Seconds of a plain step of `rows` rows, for which nothing is drafted."""
        return self.verify_s(rows)

    def steady_s(self, tokens: int) -> float:
        """Seconds of a step of one row that reads so many tokens, where all steps do."""
        return self.verify_s(tokens)

    def observe(self, rows: int, forwards: int, draft_s: float, tokens: int, verify_s: float) -> None:
        """Learn from one step.

        Args:
            rows: rows in the batch.
            forwards: draft forwards made.
            draft_s: seconds spent drafting.
            tokens: tokens the target read, all rows together.
            verify_s: seconds of the rest of the step.
        """
        self._pass_on(self._width(tokens))

    def _pass_on(self, width: int) -> None:
        """The next step comes after one of that width."""
        self._last, self.after = width, width if self._switch else None


class GivenCosts(Costs):
    """Costs that do not change: for simulating another machine, and for runs that must not depend on the clock.

    Args:
        draft: seconds of a draft forward.
        verify: seconds of verification by tokens read; linear in between, with the last slope beyond.
        switch: as in `Costs`.
        width: as in `Costs`.
    """

    def __init__(
        self,
        draft: float,
        verify: Mapping[int, float] | float = 1.0,
        switch: float = 0.0,
        width: Callable[[int], int] | None = None,
    ) -> None:
        super().__init__(switch, width)
        self._draft = draft
        self._verify = verify if isinstance(verify, Mapping) else {1: verify, 2: verify}

    def draft_s(self, rows: int, forwards: int = 1) -> float:
        return forwards * self._draft

    def verify_s(self, tokens: int) -> float:
        return interpolate(self._verify, tokens)


class MeasuredCosts(Costs):
    """Costs measured while running, on top of a calibration.

    An estimate is what the calibration says, times how much slower all recent steps were than it says, times how much
    slower than these the steps of that size were; sizes that the target reads with one width are one. So sizes not seen
    lately follow the machine, and a few slow steps do not put a wall around theirs, which no step would then pass to
    see better. What another width than the last one's costs is the median of what steps took more after a wider one.
    What steps take that all read as many, plain ones above all, is told by such steps alone.

    Drafting is as slow as the machine, too. What it takes beyond that is mostly time of the host before and after the
    forwards, which must not make each of them look dear, so short drafts are held against long ones.

    Args:
        draft: calibrated seconds of drafting one row by number of forwards; the first, which finds the caches full of
            the target's weights, costs more.
        verify: calibrated seconds of a target forward by tokens read, after one of the same width.
        switch: calibrated seconds of another width.
        width: as in `Costs`.
    """

    def __init__(
        self,
        draft: Mapping[int, float],
        verify: Mapping[int, float],
        switch: float = 0.0,
        width: Callable[[int], int] | None = None,
    ) -> None:
        super().__init__(switch, width)
        # Until it was measured, drafting so many rows is like drafting one.
        self._draft: defaultdict[int, Drafting] = defaultdict(partial(Drafting, draft))
        self._verify = Drifting(verify)
        self._alike = 0  # steps in a row that were of the last one's width
        self._unread: list[tuple[tuple[int, int, float, int, float], int, int | None, int]] = []  # not learnt from yet
        self._more = deque([switch] * (RECENT // 2), maxlen=RECENT)
        # Where one token is read as several, a plain step is like others.
        self._steady = Steady(self._verify.calibrated, self._switches) if self._width(1) < self._width(2) else None

    def draft_s(self, rows: int, forwards: int = 1) -> float:
        return self._draft[rows](forwards, self._verify.level) if forwards else 0.0

    def verify_s(self, tokens: int) -> float:
        return self._verify(self._width(tokens))

    def plain_s(self, rows: int) -> float:
        return self._steady.plain_s if self._steady and rows == 1 else self.verify_s(rows)

    def steady_s(self, tokens: int) -> float:
        return self.plain_s(1) * self._steady.share(self._width(tokens)) if self._steady else self.verify_s(tokens)

    def observe(self, rows: int, forwards: int, draft_s: float, tokens: int, verify_s: float) -> None:
        self.last_s = draft_s + verify_s
        width, before = self._width(tokens), self._last
        self._alike = self._alike + 1 if width == before else 1
        self._unread.append(((rows, forwards, draft_s, tokens, verify_s), width, before, self._alike))
        self._pass_on(width)
        if self._steady and rows == 1:
            self.age = 0 if tokens == 1 and self._alike > CALM else self.age + 1
        # One more says little, but for plain steps that are timed by themselves: no answer changes before it is time.
        # And what is learnt in a row takes less time than one by one.
        if (tokens == 1 and CALM < self._alike < RECENT) or is_time(self._verify.count + len(self._unread)):
            self._learn()

    def _learn(self) -> None:
        for (rows, forwards, draft_s, tokens, verify_s), width, before, alike in self._unread:
            took = verify_s if forwards else draft_s + verify_s  # looking something up is no drafting
            if before is not None and width < before:  # such sizes are known best
                self._more.append(took - self._verify(width))
            # All answers change together, since those who ask remember them until one does.
            if fresh := self._verify.observe(width, took, 0.0 if before in (None, width) else self._switch):
                self._switch = max(median(self._more), 0.0)
            if forwards:
                self._draft[rows].observe(forwards, draft_s, self._verify.level, fresh)
            if rows == 1 and self._steady:
                fresh |= self._steady.observe(width, verify_s, tokens == 1, alike, fresh)
            self.changes += fresh
        self._unread.clear()


class ScaledCosts(Costs):
    """Costs of a drafter that needs another number of forwards, or of tokens read, than one per drafted token.

    Args:
        costs: of a forward and of a verification.
        block: tokens drafted per draft forward; 0 if it needs none.
        reads: tokens that the target reads per node of the draft.
    """

    def __init__(self, costs: Costs, block: int = 1, reads: int = 1) -> None:
        self._costs, self._block, self._reads = costs, block, reads
        self.asking, self.guessed = costs.asking, costs.guessed
        self.typical = ScaledCosts(costs.typical, block, reads) if costs.typical else None

    @property
    def widths(self) -> tuple[int, ...]:
        return self._costs.widths if self._reads == 1 else ()

    def draft_s(self, rows: int, forwards: int = 1) -> float:
        return self._costs.draft_s(rows, -(-forwards // self._block) if self._block else 0)

    def verify_s(self, tokens: int) -> float:
        return self._costs.verify_s(self._reads * tokens)

    def switch_s(self, tokens: int, after: int | None = None) -> float:
        return self._costs.switch_s(self._reads * tokens, None if after is None else self._reads * after)

    def plain_s(self, rows: int) -> float:
        return self._costs.plain_s(rows)

    def steady_s(self, tokens: int) -> float:
        return self._costs.steady_s(self._reads * tokens)

    def observe(self, rows: int, forwards: int, draft_s: float, tokens: int, verify_s: float) -> None:
        (told := self._costs).observe(rows, forwards, draft_s, tokens, verify_s)
        self.last_s, self.changes, self.after, self.age = told.last_s, told.changes, told.after, told.age
