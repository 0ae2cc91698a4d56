"""What steps cost on this machine. Policies that decide by speed ask, through `prices`; nothing else depends on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping
from statistics import median

RECENT = 9  # timings of one size that are kept, and as many count for the calibration of it


class Costs(ABC):
    """Seconds of what a step is made of.

    Args:
        switch: what a step costs more whose target forward has another width than the last one.
        width: tokens that the target really reads for so many, which may be padded; none takes them as they are.

    Attributes:
        last_s: seconds of the last step, where they are measured.
    """

    last_s: float | None = None

    def __init__(self, switch: float = 0.0, width: Callable[[int], int] | None = None) -> None:
        self._switch, self._width = switch, width or (lambda tokens: tokens)
        self._last: int | None = None

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

    def observe(self, rows: int, forwards: int, draft_s: float, tokens: int, verify_s: float) -> None:
        """Learn from one step.

        Args:
            rows: rows in the batch.
            forwards: draft forwards made.
            draft_s: seconds spent drafting.
            tokens: tokens the target read, all rows together.
            verify_s: seconds of the rest of the step.
        """
        self._last = self._width(tokens)


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
        self._calibrated = draft
        self._draft: dict[int, _Drafting] = {}
        self._verify = _Drifting(verify)
        self._switches = deque([switch] * (RECENT // 2), maxlen=RECENT)

    def draft_s(self, rows: int, forwards: int = 1) -> float:
        return self._drafting(rows)(forwards, self._verify.level) if forwards else 0.0

    def verify_s(self, tokens: int) -> float:
        return self._verify(self._width(tokens))

    def observe(self, rows: int, forwards: int, draft_s: float, tokens: int, verify_s: float) -> None:
        self.last_s = draft_s + verify_s
        if forwards:
            self._drafting(rows).observe(forwards, draft_s, self._verify.level)
        width, before = self._width(tokens), self._last
        if width == before:  # as nearly always where nothing is drafted, where this is most of what a step costs more
            self._verify.observe(width, verify_s)
            return
        if before is not None and width < before:  # such sizes are known best
            self._switches.append(verify_s - self._verify(width))
            self._switch = max(median(self._switches), 0.0)
        self._verify.observe(width, verify_s, 0.0 if before is None else self._switch)
        self._last = width

    def _drafting(self, rows: int) -> _Drafting:
        """Drafting that many rows: until it was measured, like drafting one."""
        if rows not in self._draft:
            self._draft[rows] = _Drafting(self._calibrated)
        return self._draft[rows]


class _Drifting:
    """A calibrated curve and how far recent timings are from it.

    Attributes:
        level: by which factor they are.
    """

    def __init__(self, calibrated: Mapping[int, float]) -> None:
        self._calibrated = calibrated
        self.level = 1.0
        self._count = 0
        self._all: deque[float] = deque(maxlen=4 * RECENT)
        self._at: dict[int, deque[float]] = {}
        self._known: dict[int, float] = {}
        self._base: dict[int, float] = {}

    def __call__(self, size: int) -> float:
        if size not in self._known:
            self._known[size] = self._curve(size) * self.level * self._own(size)
        return self._known[size]

    def observe(self, size: int, seconds: float, extra: float = 0.0) -> None:
        """Learn from a timing, of which `extra` seconds are something else's."""
        ratio = max(seconds - extra, seconds / 2) / self._curve(size)
        self._all.append(ratio)
        self._count += 1
        # One timing among so many changes little, and steps ask more often than they should wait for answers.
        if self._count < RECENT or self._count % RECENT == 0:
            self.level = median(self._all)
            self._known.clear()
        if size not in self._at:
            self._at[size] = deque(maxlen=RECENT)
        self._at[size].append(ratio / self.level)

    def _own(self, size: int) -> float:
        """By which factor timings of that size are slower than all."""
        seen = self._at.get(size, ())
        return 1 + (median(seen) - 1) * len(seen) / (len(seen) + RECENT) if seen else 1.0

    def _curve(self, size: int) -> float:
        if size not in self._base:
            self._base[size] = interpolate(self._calibrated, size)
        return self._base[size]


class _Drafting:
    """A calibrated curve of drafting, and the line through recent timings over it: a sum, and a factor on the curve.

    Attributes:
        more: seconds that are there in every step.
        slope: the factor.
    """

    def __init__(self, calibrated: Mapping[int, float]) -> None:
        self._calibrated = calibrated
        self.more, self.slope = 0.0, 1.0
        self._count = 0
        self._all: deque[tuple[float, float]] = deque(maxlen=4 * RECENT)  # what was calibrated, what it took

    def __call__(self, forwards: int, level: float) -> float:
        """Seconds of so many forwards on a machine that is `level` times slower than calibrated."""
        curve = interpolate(self._calibrated, forwards)
        return level * max(self.slope * curve + self.more, curve / 2)

    def observe(self, forwards: int, seconds: float, level: float) -> None:
        """Learn from a timing."""
        self._all.append((interpolate(self._calibrated, forwards), seconds / level))
        self._count += 1
        if self._count < RECENT or self._count % RECENT == 0:
            self._fit()

    def _fit(self) -> None:
        """Medians of the shorter half and of the longer half make the line, as far as there are enough of both."""
        known, half = sorted(self._all), len(self._all) // 2
        (short, little), (long, much) = (
            [median(values) for values in zip(*part, strict=True)]
            for part in (known[: half or 1], known[-half or -1 :])
        )
        steepness = (much - little) / (long - short) if long > short else 1.0
        trust = half / (half + RECENT)
        self.slope = 1 + trust * (min(max(steepness, 0.5), 4.0) - 1)
        self.more = median(took - self.slope * curve for curve, took in known)


class ScaledCosts(Costs):
    """Costs of a drafter that needs another number of forwards, or of tokens read, than one per drafted token.

    Args:
        costs: of a forward and of a verification.
        block: tokens drafted per draft forward; 0 if it needs none.
        reads: tokens that the target reads per node of the draft.
    """

    def __init__(self, costs: Costs, block: int = 1, reads: int = 1) -> None:
        self._costs, self._block, self._reads = costs, block, reads

    def draft_s(self, rows: int, forwards: int = 1) -> float:
        return self._costs.draft_s(rows, -(-forwards // self._block) if self._block else 0)

    def verify_s(self, tokens: int) -> float:
        return self._costs.verify_s(self._reads * tokens)

    def switch_s(self, tokens: int, after: int | None = None) -> float:
        return self._costs.switch_s(self._reads * tokens, None if after is None else self._reads * after)

    def plain_s(self, rows: int) -> float:
        return self._costs.plain_s(rows)

    def observe(self, rows: int, forwards: int, draft_s: float, tokens: int, verify_s: float) -> None:
        self._costs.observe(rows, forwards, draft_s, tokens, verify_s)
        self.last_s = self._costs.last_s


def interpolate(points: Mapping[int, float], size: int) -> float:
    """Value at `size` of a curve known at some sizes: linear in between, level before them, its last slope after."""
    if size in points:
        return points[size]
    sizes = sorted(points)
    after = bisect_left(sizes, size)
    if after == 0 or len(sizes) == 1:
        return points[sizes[0]]
    low, high = sizes[min(after, len(sizes) - 1) - 1], sizes[min(after, len(sizes) - 1)]
    return points[low] + (points[high] - points[low]) * (size - low) / (high - low)
