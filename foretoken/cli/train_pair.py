"""`foretoken train pair`: a target and a draft from text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretoken.cli.command import grouped
from foretoken.cli.output import print_json, stdout
from foretoken.cli.sources import evaluation_prompts, open_sources
from foretoken.cli.train_bar import training_bar

if TYPE_CHECKING:
    from foretoken.train.pair import Data

EXAMPLES = (
    "foretoken train pair --budget 3m --data texts.jsonl.gz --out pairs/mine",
    "foretoken train pair --budget 2e6 --data a.jsonl --licence a.jsonl=MIT --exclude eval.jsonl --out pairs/small",
)


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """Texts to train on, and what a training from them takes."""

    data: Annotated[
        list[str], typer.Option(metavar="FILE", help="Texts, .jsonl or .jsonl.gz, or a data set. Repeatable.")
    ]
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where models, cards and checkpoints go.")]
    licence: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=LICENCE", help="Of a file or data set, for the card. Repeatable."),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Evaluation prompts: texts that hold one are left out. Repeatable."),
    ] = None
    seed: Annotated[int, typer.Option(metavar="N", help="Of everything random.")] = 0
    as_json: Annotated[bool, typer.Option("--json", help="The card as one JSON object on stdout.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, notes or warnings.")] = False
    debug: Annotated[bool, typer.Option("--debug", help="Tracebacks and library messages.")] = False

    def read(self) -> Data:
        """The texts, and what must not be in them."""
        from foretoken.train.pair import Data

        return Data(open_sources(self.data, self.licence or ()), evaluation_prompts(self.exclude or ()))


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
    if options.as_json:
        print_json("train.pair/1", card)
    else:
        _show(card, Path(options.out))


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
