"""Calibrated curves of seconds by size, and how far recent timings are from them."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from functools import cache, partial
from statistics import median

RECENT = 9  # timings of one size that are kept, and as many count for the calibration of it
FEW = 5  # drafts that are held against the calibration
CALM = 4  # plain steps in a row that still pay for what was read before them


class Drifting:
    """A calibrated curve and how far recent timings are from it.

    Attributes:
        count: timings so far.
        level: by which factor they are.
        calibrated: seconds by size that were calibrated.
    """

    def __init__(self, calibrated: Mapping[int, float]) -> None:
        self.calibrated = remembered(calibrated)
        self.level = 1.0
        self.count = 0
        self._all: deque[float] = deque(maxlen=4 * RECENT)
        self._sizes: deque[int] = deque(maxlen=RECENT)
        # Of each size, and when that was.
        self._at: defaultdict[int, deque[tuple[float, int]]] = defaultdict(partial(deque, maxlen=3 * RECENT))
        self._known: dict[int, float] = {}

    def __call__(self, size: int) -> float:
        if size not in self._known:
            self._known[size] = self.calibrated(size) * self.level * self._own(size)
        return self._known[size]

    def observe(self, size: int, seconds: float, extra: float = 0.0) -> bool:
        """Learn from a timing, of which `extra` seconds are something else's.

        Returns:
            Whether it changes what is said of sizes.
        """
        ratio = max(seconds - extra, seconds / 2) / self.calibrated(size)
        self._all.append(ratio)
        self._sizes.append(size)
        self.count += 1
        if fresh := is_time(self.count):
            self.level = median(self._all)
            self._known.clear()
        # Where one size alone was timed lately, nothing says that it is the size which is slow, and not the machine.
        if not extra and self._sizes.count(size) < len(self._sizes):
            self._at[size].append((ratio / self.level, self.count))
        return fresh

    def _own(self, size: int) -> float:
        """By which factor timings of that size are slower than all; the longer ago they were, the less they say."""
        if not (seen := self._at.get(size)):
            return 1.0
        doubt = RECENT + (self.count - seen[-1][1]) / 2
        return 1 + (median(ratio for ratio, _ in seen) - 1) * len(seen) / (len(seen) + doubt)


class Drafting:
    """A calibrated curve of drafting, and the line through recent timings over it: a sum, and a factor on the curve.

    Attributes:
        more: seconds that are there in every step.
        slope: the factor.
    """

    def __init__(self, calibrated: Mapping[int, float]) -> None:
        self._calibrated = remembered(calibrated)
        self.more, self.slope = 0.0, 1.0
        self._all: deque[tuple[float, float]] = deque(maxlen=4 * RECENT)  # what was calibrated, what it took

    def __call__(self, forwards: int, level: float) -> float:
        """Seconds of so many forwards on a machine that is `level` times slower than calibrated."""
        curve = self._calibrated(forwards)
        return level * max(self.slope * curve + self.more, curve / 2)

    def observe(self, forwards: int, seconds: float, level: float, fresh: bool) -> None:
        """Remember a timing; where other answers change now, so does this one."""
        self._all.append((self._calibrated(forwards), seconds / level))
        if fresh:
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
        # Alone, the first drafts say little: for them prompts are read.
        more = [took - self.slope * curve for curve, took in known]
        self.more = median([*more, *[0.0] * (FEW - len(more))])


class Steady:
    """What steps take among others of their width. After another width they take longer: the price of changing it.

    Args:
        calibrated: seconds by width, among others of it.
        switches: whether a change of width costs anything.

    Attributes:
        plain_s: seconds of those, as far as others say how the machine has changed since.
    """

    def __init__(self, calibrated: Callable[[int], float], switches: bool) -> None:
        self.plain_s = calibrated(1)
        self._calibrated, self._switches = calibrated, switches
        self._seen = deque([self.plain_s] * CALM, maxlen=RECENT)  # over how slow others were
        self._slow = 1.0  # how slow others are, over what was calibrated
        self._others: deque[float] = deque(maxlen=RECENT)
        self._own: defaultdict[int, deque[float]] = defaultdict(partial(deque, maxlen=RECENT))  # over plain ones'

    def share(self, width: int) -> float:
        """Plain steps that one of that width takes."""
        calibrated = self._calibrated(width) / self._calibrated(1)
        if width not in self._own:
            return calibrated
        own = self._own[width]
        return calibrated * (1 + (median(own) - 1) * len(own) / (len(own) + RECENT))

    def observe(self, width: int, seconds: float, plain: bool, alike: int, fresh: bool) -> bool:
        """Learn from a step.

        Args:
            width: tokens it read.
            seconds: it took.
            plain: whether nothing was drafted.
            alike: steps of that width in a row, with this one.
            fresh: whether other answers change now.

        Returns:
            Whether it changes what is said.
        """
        calm = alike > CALM
        if plain:
            if not calm:
                return False
            self._seen.append(seconds / self._slow)
            if not is_time(alike):
                return False
        else:
            if calm or not self._switches:
                slow = seconds / self._calibrated(width)
                self._others.append(slow)
                self._own[width].append(slow * self._calibrated(1) / self.plain_s)
            if not fresh or not self._others:
                return False
            self._slow = median(self._others)
        self.plain_s = median(self._seen) * self._slow
        return True


def is_time(count: int) -> bool:
    """Whether so many timings are a reason to answer anew: one among many changes little, and answers take time."""
    return count < RECENT or count % RECENT == 0


def remembered(points: Mapping[int, float]) -> Callable[[int], float]:
    """`interpolate` for a curve that stays the same."""
    return cache(partial(interpolate, points))


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
