"""The table of `foretoken bench` that people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from foretoken.cli.output import stdout


def show(record: Mapping[str, Any]) -> None:
    """Print one line per method.

    Args:
        record: the run's JSON object.
    """
    from foretoken.bench.plot import fastest

    rows, best_fixed, count = record["methods"], record["best_fixed"], record["num_prompts"]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("\nmethod", no_wrap=True)
    heads = ("tokens\nper s", "speed-up\nof sums", "median prompt\n(quartiles)", f"over\n{best_fixed or 'fixed'}")
    for head in (*heads, "tokens/\nforward", "accepted", "discard\nrate"):
        table.add_column(head, justify="right", no_wrap=True)
    best = fastest(rows)
    for row in rows:
        over = row["over_best_fixed"]
        table.add_row(
            row["method"],
            f"{row['tokens_per_s']:.1f}",
            f"{row['speed_up']:.2f}",
            f"{row['speed_up_median']:.2f} ({row['speed_up_low']:.2f}-{row['speed_up_high']:.2f})",
            "" if over is None else f"{over:.2f}",
            f"{row['block_efficiency']:.2f}",
            f"{row['acceptance_rate']:.0%}" if row["num_tested"] else "",
            f"{row['discard_rate']:.2f}" if row["num_drafted"] else "",
            style="bold" if row["method"] == best else "",
        )
    console = stdout()
    console.print(table)
    console.print(f"{record['config']['target']}: {count} prompts, {rows[0]['num_tokens']} tokens by plain decoding.")
    console.print("Decoding only, prefill apart.")


def show_profile(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print where the time of a step goes, one line per method.

    Args:
        rows: as `summarise` returns them, of a run that was profiled.
    """
    from foretoken.bench.profile import STATIONS

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("\nmethod", no_wrap=True)
    for head in ("ms\na step", *(station.replace("_", "\n") for station in STATIONS), "all but\nforwards"):
        table.add_column(head if "\n" in head else f"\n{head}", justify="right", no_wrap=True)
    for row in rows:
        profile = row["profile"]
        shares = (*(profile["shares"][station] for station in STATIONS), profile["overhead_rate"])
        table.add_row(row["method"], f"{1e3 * profile['step_s']:.2f}", *(f"{share:.1%}" for share in shares))
    console = stdout()
    console.print()
    console.print(table)
    console.print("Share of a step's time; draft and verify without the forwards of the models.")
