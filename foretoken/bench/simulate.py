"""Judge length policies at costs this machine does not have: every policy over the same recorded traces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foretoken.bench.methods import PLAIN
from foretoken.bench.replay import Steps, replay, seconds
from foretoken.bench.trace import Trace
from foretoken.costs import Costs
from foretoken.length.base import LengthPolicy

ORACLE = "oracle"


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
    traces: Sequence[Trace], policies: Mapping[str, Callable[[], LengthPolicy]], costs: Costs
) -> Iterator[Simulated]:
    """Run plain decoding, the oracle and every policy over the traces.

    The oracle knows what chance will do, which no policy can: it bounds them all, at temperatures above 0 from afar.

    Args:
        traces: one per prompt.
        policies: makes a fresh policy, by name.
        costs: of forwards.
    """
    plain = [[(0, 0)] * len(trace.text) for trace in traces]
    yield _summed(PLAIN, traces, plain, costs)
    yield _summed(ORACLE, traces, [_hindsight(trace) for trace in traces], costs)
    for name, make in policies.items():
        policy = make()
        yield _summed(name, traces, [replay(trace, policy, costs) for trace in traces], costs)


def table(simulated: Sequence[Simulated]) -> list[dict[str, Any]]:
    """One row per method: rates, speed over plain decoding and over the best fixed length, share of the oracle's gain.

    `share_of_oracle` is 0 for the best fixed length and 1 for the oracle, in speed.
    """
    by_name = {one.method: one for one in simulated}
    pace = {name: one.num_tokens / one.seconds for name, one in by_name.items()}
    fixed = [value for name, value in pace.items() if name.startswith("fixed")]
    best = max([*fixed, pace[PLAIN]]) if fixed else None
    rows = []
    for one in simulated:
        drafted = sum(step[0] for steps in one.steps for step in steps)
        accepted = sum(step[1] for steps in one.steps for step in steps)
        ahead = None if best is None else pace[one.method] / best
        room = None if best is None else pace[ORACLE] - best
        rows.append(
            {
                "method": one.method,
                "speed_up": pace[one.method] / pace[PLAIN],
                "over_best_fixed": ahead,
                "share_of_oracle": (pace[one.method] - best) / room if best is not None and room else None,
                "discard_rate": (drafted - accepted) / one.num_tokens,
                "verification_rate": sum(map(len, one.steps)) / one.num_tokens,
            }
        )
    return rows


def _hindsight(trace: Trace) -> Steps:
    """Steps that draft exactly the run that will be accepted."""
    steps, position = [], 0
    while position < len(trace.text):
        run = min(trace.run(position), len(trace.text) - position - 1)
        steps.append((run, run))
        position += run + 1
    return steps


def _summed(name: str, traces: Sequence[Trace], steps: list[Steps], costs: Costs) -> Simulated:
    return Simulated(name, steps, sum(len(trace.text) for trace in traces), sum(seconds(one, costs) for one in steps))
