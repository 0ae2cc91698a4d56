"""Judge length policies at costs this machine does not have: every policy over the same recorded traces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from foretoken.bench.methods import FIXED, ORACLE, PLAIN, family
from foretoken.bench.replay import Steps, replay, seconds
from foretoken.bench.run import Sample
from foretoken.bench.trace import Trace
from foretoken.costs import GivenCosts
from foretoken.length.base import LengthPolicy


@dataclass(frozen=True, slots=True)
class Simulated:
    """One method over all traces at one cost.

    Attributes:
        method: its name; "plain" never drafts, "oracle" drafts exactly what will be accepted.
        steps: of every trace.
        num_tokens: emitted.
        seconds: what the steps take.
    """

    method: str
    steps: list[Steps]
    num_tokens: int
    seconds: float


def simulate(
    traces: Sequence[Trace], policies: Mapping[str, Callable[[], LengthPolicy]], costs: GivenCosts
) -> list[Simulated]:
    """Run plain decoding, the oracle and every policy over the traces.

    The oracle knows what chance will do, which no policy can: it bounds them all, at temperatures above 0 from afar.

    Args:
        traces: one per prompt.
        policies: makes a fresh policy, by name.
        costs: of forwards.
    """
    found: dict[str, list[Steps]] = {
        PLAIN: [[(0, 0)] * len(trace.text) for trace in traces],
        ORACLE: [_hindsight(trace) for trace in traces],
    }
    for name, make in policies.items():
        policy = make()
        found[name] = [replay(trace, policy, costs) for trace in traces]
    count = sum(len(trace.text) for trace in traces)
    return [Simulated(name, steps, count, sum(seconds(one, costs) for one in steps)) for name, steps in found.items()]


def summary(simulated: Sequence[Simulated], measured_s: Mapping[str, float]) -> list[dict[str, Any]]:
    """One row per method, as docs/bench.md describes them.

    Args:
        simulated: as `simulate` returns them.
        measured_s: what the methods really took, for those that were run at these costs.
    """
    pace = {one.method: one.num_tokens / one.seconds for one in simulated}
    # Plain decoding is the candidate length 0.
    best = max(value for name, value in pace.items() if family(name) in (PLAIN, FIXED))
    room = pace[ORACLE] - best
    rows = []
    for one in simulated:
        drafted = sum(step[0] for steps in one.steps for step in steps)
        accepted = sum(step[1] for steps in one.steps for step in steps)
        took = measured_s.get(one.method)
        rows.append(
            {
                "method": one.method,
                "speed_up": pace[one.method] / pace[PLAIN],
                "over_best_fixed": pace[one.method] / best,
                "share_of_oracle": (pace[one.method] - best) / room if room > 0 else None,
                "discard_rate": (drafted - accepted) / one.num_tokens,
                "verification_rate": sum(map(len, one.steps)) / one.num_tokens,
                "simulated_over_measured": one.seconds / took if took else None,
            }
        )
    return rows


def costs_of(samples: Sequence[Sample], width: Callable[[int], int]) -> GivenCosts:
    """Costs that the steps of a run had: medians by size.

    A step that drafts also pays once for setting out; that is counted as verification of more than one token.

    Args:
        samples: of all methods.
        width: as in `Costs`.
    """
    drafts: dict[int, list[float]] = {}
    steady: dict[int, list[float]] = {}
    switched: dict[int, list[float]] = {}
    for sample in samples:
        last = None
        for drafted, _, draft_s, rest_s in sample.steps:
            now = width(drafted + 1)
            drafts.setdefault(drafted, []).append(draft_s)
            (steady if last in (None, now) else switched).setdefault(drafted + 1, []).append(rest_s)
            last = now
    each, once = _line({size: (median(times), len(times)) for size, times in drafts.items() if size})
    more = [s - median(steady[size]) for size, times in switched.items() if size in steady for s in times]
    switch = max(median(more), 0.0) if more else 0.0
    rest = {size: median(times) - switch for size, times in switched.items()}
    rest |= {size: median(times) for size, times in steady.items()}
    verify = {size: took + (once if size > 1 else median(drafts[0])) for size, took in sorted(rest.items())}
    return GivenCosts(each, verify, switch, width)


def _line(points: Mapping[int, tuple[float, int]]) -> tuple[float, float]:
    """Slope and offset of the weighted least-squares line through sizes with (seconds, weight)."""
    weight = sum(w for _, w in points.values())
    if not weight:
        return 0.0, 0.0
    x = sum(size * w for size, (_, w) in points.items()) / weight
    y = sum(value * w for value, w in points.values()) / weight
    spread = sum(w * (size - x) ** 2 for size, (_, w) in points.items())
    slope = sum(w * (size - x) * (value - y) for size, (value, w) in points.items()) / spread if spread else y / x
    return slope, y - slope * x


def _hindsight(trace: Trace) -> Steps:
    """Steps that draft exactly the run that will be accepted."""
    steps, position = [], 0
    while position < len(trace.text):
        run = min(trace.run(position), len(trace.text) - position - 1)
        steps.append((run, run))
        position += run + 1
    return steps
