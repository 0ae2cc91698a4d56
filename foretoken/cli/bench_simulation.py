"""`foretoken bench --simulate`: the same methods at other costs of a draft forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.table import Table

from foretoken.cli.output import progress, stdout
from foretoken.errors import ConfigError

if TYPE_CHECKING:
    from foretoken.bench.run import Sample
    from foretoken.llm import LLM
    from foretoken.request import Request

HERE = "here"


def read_costs(text: str) -> list[float | None]:
    """Costs of a draft forward in target forwards; None for those measured in the run.

    Raises:
        ConfigError: what is no number of 0 or more, and not `here`.
    """
    found: list[float | None] = []
    for part in (one.strip() for one in text.split(",")):
        try:
            found.append(None if part == HERE else float(part))
        except ValueError:
            found.append(-1.0)
        if not (found[-1] is None or 0 <= found[-1] < float("inf")):
            hint = f"comma-separated shares of a target forward, or `{HERE}`: {HERE},0.2,0.1,0.05"
            raise ConfigError(f"`{part}` is no cost of a draft forward", hint=hint)
    return found


def simulation(
    chosen: Mapping[str, LLM],
    requests: Sequence[Request],
    samples: Sequence[Sample],
    rows: Sequence[Mapping[str, Any]],
    costs: str,
    quiet: bool,
) -> list[dict[str, Any]]:
    """Simulate the methods of a finished run.

    Args:
        chosen: models by method, plain decoding first.
        requests: what they were asked.
        samples: of the run, whose plain answers are traced.
        rows: what the samples come to, by method.
        costs: as `read_costs` takes them.
        quiet: no progress.
    """
    from foretoken.bench.methods import ORACLE, PLAIN
    from foretoken.bench.simulate import RunCosts, costs_of, simulate, summary
    from foretoken.bench.trace import record
    from foretoken.costs import GivenCosts

    target, draft = next(llm.models for name, llm in chosen.items() if name != PLAIN)
    assert draft is not None, "`variants` refuses this"
    answers = [s for s in samples if s.method == PLAIN and s.repeat == 0]
    with progress("simulating", quiet) as update:
        traces = []
        for sample in answers:
            traces.append(record(target, draft, requests[sample.prompt], sample.token_ids))
            update(f"recorded {len(traces)} of {len(answers)} answers")
        policies = {name: llm.make_length for name, llm in chosen.items() if name not in (PLAIN, ORACLE)}
        here, measured = costs_of(samples, target.width), {row["method"]: row["tokens_per_s"] for row in rows}
        found = []
        for cost in read_costs(costs):
            update("at the costs measured" if cost is None else f"at {cost:g} target forwards per draft forward")
            given = here if cost is None else RunCosts(dict.fromkeys((*chosen, ORACLE), GivenCosts(cost)))
            share = given.of[PLAIN].draft_s(1) / given.of[PLAIN].verify_s(1)
            # Elsewhere a token costs a forward, and none is drawn before it is wanted.
            told = traces if given is here else [replace(trace, ahead=0) for trace in traces]
            compared = summary(simulate(told, policies, given), measured if given is here else {})
            found.append({"draft_cost": share, "measured": given is here, "methods": compared})
    return found


def show_simulation(found: Sequence[Mapping[str, Any]]) -> None:
    """Print speed over the best fixed length, one column per cost."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("\nmethod", no_wrap=True)
    for one in found:
        what = "as measured" if one["measured"] else "simulated"
        table.add_column(f"{what}\nat {one['draft_cost']:.2f}", justify="right", no_wrap=True)
    for index, row in enumerate(found[0]["methods"]):
        cells = [one["methods"][index] for one in found]
        table.add_row(row["method"], *(f"{c['speed_up']:.2f}x ({c['over_best_fixed']:.2f})" for c in cells))
    console = stdout()
    console.print()
    console.print(table)
    console.print("Simulated speed over plain decoding (over the best fixed length), by cost of a draft forward.")
