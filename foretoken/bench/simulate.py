"""Judge length policies at costs this machine does not have: every policy over the same recorded traces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
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
    traces: Sequence[Trace], policies: Mapping[str, Callable[[], LengthPolicy]], costs: Mapping[str, GivenCosts]
) -> list[Simulated]:
    """Run plain decoding, the oracle and every policy over the traces.

    The oracle knows what chance will do, which no policy can: it bounds them all, at temperatures above 0 from afar.

    Args:
        traces: one per prompt.
        policies: makes a fresh policy, by name.
        costs: of the steps of each, by name.
    """
    found: dict[str, list[Steps]] = {
        PLAIN: [[(0, 0)] * len(trace.text) for trace in traces],
        ORACLE: [_hindsight(trace) for trace in traces],
    }
    for name, make in policies.items():
        policy = make()
        found[name] = [replay(trace, policy, costs[name]) for trace in traces]
    count = sum(len(trace.text) for trace in traces)
    return [
        Simulated(name, steps, count, sum(seconds(one, costs[name]) for one in steps)) for name, steps in found.items()
    ]


def summary(simulated: Sequence[Simulated], tokens_per_s: Mapping[str, float]) -> list[dict[str, Any]]:
    """One row per method, as docs/bench.md describes them.

    Args:
        simulated: as `simulate` returns them.
        tokens_per_s: measured speeds, of those that were run at these costs. Texts drawn by chance differ in length.
    """
    pace = {one.method: one.num_tokens / one.seconds for one in simulated}
    # Plain decoding is the candidate length 0.
    best = max(value for name, value in pace.items() if family(name) in (PLAIN, FIXED))
    room = pace[ORACLE] - best
    rows = []
    for one in simulated:
        drafted = sum(step[0] for steps in one.steps for step in steps)
        accepted = sum(step[1] for steps in one.steps for step in steps)
        speed = tokens_per_s.get(one.method)
        rows.append(
            {
                "method": one.method,
                "speed_up": pace[one.method] / pace[PLAIN],
                "over_best_fixed": pace[one.method] / best,
                "share_of_oracle": (pace[one.method] - best) / room if room > 0 else None,
                "discard_rate": (drafted - accepted) / one.num_tokens,
                "verification_rate": sum(map(len, one.steps)) / one.num_tokens,
                "simulated_over_measured": speed / pace[one.method] if speed else None,
            }
        )
    return rows


def costs_of(samples: Sequence[Sample], width: Callable[[int], int]) -> dict[str, GivenCosts]:
    """What the steps of a run cost, by method: the models' work as in the steps of all methods, deciding as in its own.

    All are means, the only averages that add up to the time taken: slow steps, such as the first ones of an answer, are
    in it too. A draft forward is the slope of drafting; what else a step of some size takes counts as its verification.

    Args:
        samples: of all methods.
        width: as in `Costs`.

    Returns:
        Costs of every method in the samples, and of the oracle, which has nothing to decide if it was not run.
    """
    drafting: dict[int, list[float]] = {}
    deciding: dict[str, dict[int, list[float]]] = {ORACLE: {}}
    steady: dict[int, list[float]] = {}
    switched: dict[int, list[float]] = {}
    for sample in samples:
        own, last = deciding.setdefault(sample.method, {}), None
        for drafted, _, draft_s, length_s, rest_s in sample.steps:
            now = width(drafted + 1)
            drafting.setdefault(drafted, []).append(draft_s)
            own.setdefault(drafted, []).append(length_s)
            (steady if last in (None, now) else switched).setdefault(drafted, []).append(draft_s + rest_s)
            last = now
    more = [s - fmean(steady[size]) for size, times in switched.items() if size in steady for s in times]
    switch = max(fmean(more), 0.0) if more else 0.0
    whole = {
        size: fmean([*steady.get(size, ()), *(s - switch for s in switched.get(size, ()))]) for size in sorted(drafting)
    }
    each = max(_line(drafting)[0], 0.0)
    found = {}
    for method, times in deciding.items():
        per_token, once = _line(times)
        idle = fmean(times.get(0, [0.0]))
        verify = {size + 1: took - each * size + (once if size else idle) for size, took in whole.items()}
        found[method] = GivenCosts(each + per_token, verify, switch, width)
    return found


def _line(times: Mapping[int, Sequence[float]]) -> tuple[float, float]:
    """Slope and offset of the least-squares line through the seconds of sizes above 0."""
    points = [(size, s) for size, found in times.items() if size for s in found]
    if not points:
        return 0.0, 0.0
    x, y = (fmean(values) for values in zip(*points, strict=True))
    spread = sum((size - x) ** 2 for size, _ in points)
    slope = sum((size - x) * (s - y) for size, s in points) / spread if spread else y / x
    return slope, y - slope * x


def _hindsight(trace: Trace) -> Steps:
    """Steps that draft exactly the run that will be accepted."""
    steps, position = [], 0
    while position < len(trace.text):
        run = min(trace.run(position), len(trace.text) - position - 1)
        steps.append((run, run))
        position += run + 1
    return steps
