"""Judge length policies at costs this machine does not have: every policy over the same recorded traces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True)
class RunCosts:
    """What steps cost.

    Attributes:
        of: by method, the oracle included.
        start_s: seconds that the first draft of an answer takes longer.
    """

    of: Mapping[str, GivenCosts]
    start_s: float = 0.0


def simulate(
    traces: Sequence[Trace], policies: Mapping[str, Callable[[], LengthPolicy]], costs: RunCosts
) -> list[Simulated]:
    """Run plain decoding, the oracle and every policy over the traces.

    The oracle knows what chance will do, which no policy can: it bounds them all, at temperatures above 0 from afar.

    Args:
        traces: one per prompt.
        policies: makes a fresh policy, by name.
        costs: of their steps.
    """
    # Seed or not, policies are told the costs: no clock decides here.
    traces = [replace(trace, request=replace(trace.request, repeats=False)) for trace in traces]
    found: dict[str, list[Steps]] = {
        PLAIN: [[(0, 0, 0)] * len(trace.text) for trace in traces],
        ORACLE: [_hindsight(trace) for trace in traces],
    }
    for name, make in policies.items():
        policy = make()
        found[name] = [replay(trace, policy, costs.of[name]) for trace in traces]
    count = sum(len(trace.text) for trace in traces)
    return [
        Simulated(name, steps, count, sum(seconds(one, costs.of[name], costs.start_s) for one in steps))
        for name, steps in found.items()
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


@dataclass(frozen=True, slots=True)
class _Step:
    """Seconds of a step but for deciding, and what they were spent on."""

    seconds: float
    draft_s: float
    drafted: int
    forwards: int
    switches: bool
    starts: bool


def costs_of(samples: Sequence[Sample], width: Callable[[int], int]) -> RunCosts:
    """Read what steps cost off those of a run: the models' work as in the steps of all methods, deciding as in its own.

    All are means, the only averages that add up to the time taken: what is slow now and then is in it too. A draft
    forward is the slope of drafting; what else a step of some size takes counts as its verification.

    Args:
        samples: of all methods.
        width: as in `Costs`.
    """
    steps = [step for sample in samples for step in _steps(sample, width)]
    drafting = [step for step in steps if step.drafted]
    later = [step for step in drafting if not step.starts]
    each = max(_line([(step.forwards, step.draft_s) for step in later or drafting])[0], 0.0)
    steady = _by_size(
        (step.drafted, step.seconds - each * step.forwards) for step in steps if not (step.switches or step.starts)
    )

    def longer(some: Sequence[_Step], known: float = 0.0) -> float:
        """Seconds that these took longer than steady ones of their sizes, and than is known."""
        more = [
            step.seconds - each * step.forwards - steady[step.drafted] - known * step.switches
            for step in some
            if step.drafted in steady
        ]
        return max(fmean(more), 0.0) if more else 0.0

    switch = longer([step for step in steps if step.switches and not step.starts])
    start = longer([step for step in steps if step.starts], switch)
    verify = _by_size(
        (step.drafted, step.seconds - each * step.forwards - switch * step.switches - start * step.starts)
        for step in steps
    )
    found = {}
    for method in dict.fromkeys((ORACLE, *(sample.method for sample in samples))):
        decided = [(drafted, s) for x in samples if x.method == method for drafted, _, _, _, s, _ in x.steps]
        (per_token, once), idle = _line(decided), _by_size(decided).get(0, 0.0)
        decide = {size: once + per_token * size if size else idle for size in verify}
        found[method] = GivenCosts(each, {size + 1: s + decide[size] for size, s in verify.items()}, switch, width)
    return RunCosts(found, start)


def _steps(sample: Sample, width: Callable[[int], int]) -> Iterator[_Step]:
    last, started = None, False
    for drafted, _, forwards, draft_s, _, rest_s in sample.steps:
        now, starts = width(drafted + 1), bool(drafted) and not started
        yield _Step(draft_s + rest_s, draft_s, drafted, forwards, last not in (None, now), starts)
        last, started = now, started or starts


def _by_size(points: Iterable[tuple[int, float]]) -> dict[int, float]:
    """Mean seconds of every size."""
    found: dict[int, list[float]] = {}
    for size, s in points:
        found.setdefault(size, []).append(s)
    return {size: fmean(times) for size, times in sorted(found.items())}


def _line(points: Iterable[tuple[int, float]]) -> tuple[float, float]:
    """Slope and offset of the least-squares line through the seconds of sizes above 0."""
    points = [(size, s) for size, s in points if size]
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
        steps.append((run, run, run))
        position += run + 1
    return steps
