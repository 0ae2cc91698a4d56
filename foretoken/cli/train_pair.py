"""`foretoken train pair`: a target and a draft from text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from foretoken.cli.command import grouped
from foretoken.cli.output import stdout
from foretoken.cli.train_bar import training_bar
from foretoken.cli.train_options import TextOptions

EXAMPLES = (
    "foretoken train pair --budget 3m --data texts.jsonl.gz --out pairs/mine",
    "foretoken train pair --budget 2e6 --data a.jsonl --licence a.jsonl=MIT --exclude eval.jsonl --out pairs/small",
)


@grouped
def pair(
    *,
    options: TextOptions,
    budget: Annotated[
        str, typer.Option(metavar="BUDGET", help="All of the time to spend (90s, 3m, 2h), or tokens per model (2e6).")
    ] = "10m",
) -> None:
    """Train a tokenizer, a target and a draft from text.

    The budget decides everything else. Interrupted and run again with the same FOLDER, it goes on where it was. Use
    the models with --target FOLDER/target --draft FOLDER/draft.
    """
    from foretoken.train.budget import Budget

    spend = Budget.parse(budget)
    data = options.read()
    from foretoken.train.pair import train_pair

    with training_bar(options.quiet) as tell:
        card = train_pair(data, spend, options.seed, Path(options.out), tell)
    options.report("pair", card, lambda: _show(card, Path(options.out)))


def _show(card: dict[str, Any], out: Path) -> None:
    console = stdout()
    for role in ("target", "draft"):
        one = card[role]
        console.print(
            f"{out / role}: {one['num_parameters']:,} weights, {one['tokens']:,} tokens, "
            f"validation loss {one['validation_loss']:.3f}"
        )
    found = card["agreement"]
    console.print(
        f"greedy match rate {found['greedy_match_rate']:.3f}, acceptance at temperature 1 "
        f"{found['acceptance_at_temperature_1']:.3f}, on held-out text"
    )
    overlap = card["data"]["overlap"]
    console.print(
        f"{overlap['num_excluded']} texts left out for holding one of {overlap['num_evaluation_prompts']} "
        "evaluation prompts"
    )
