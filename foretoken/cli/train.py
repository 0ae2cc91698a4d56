"""`foretoken train`: what has to be trained before it helps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from foretoken.cli.command import grouped
from foretoken.cli.options import ModelOptions
from foretoken.cli.output import stdout
from foretoken.cli.train_bar import training_bar
from foretoken.cli.train_options import TrainingOptions
from foretoken.errors import ConfigError

if TYPE_CHECKING:
    from foretoken.models.predictor import AcceptancePredictor

HEAD_EXAMPLES = (
    "foretoken train acceptance-head --data prompts.jsonl --out heads/mine",
    "foretoken train acceptance-head --target owner/big --draft owner/small --data a.jsonl --out heads/small",
)
DISCO_EXAMPLES = (
    "foretoken train disco --data prompts.jsonl --out disco/mine",
    "foretoken train disco --temperature 0.7 --data a.jsonl --data b.jsonl --out disco/warm",
)


@dataclass(frozen=True, kw_only=True)
class PredictorOptions(TrainingOptions):
    """What the training of an acceptance predictor takes, too."""

    limit: Annotated[int, typer.Option(metavar="N", help="Use at most this many prompts.")] = 1000
    max_new_tokens: Annotated[int, typer.Option(metavar="N", help="Length of the sampled continuations.")] = 128
    top_k: Annotated[int, typer.Option(metavar="K", help="Acceptance is learned at this top-k; 0 keeps all.")] = 0
    top_p: Annotated[float, typer.Option(metavar="P", help="And at this top-p.")] = 1.0
    min_p: Annotated[float, typer.Option(metavar="P", help="And at this min-p.")] = 0.0

    def recipe(self) -> dict[str, Any]:
        """Those of them that a recipe has."""
        return {name: getattr(self, name) for name in ("max_new_tokens", "top_k", "top_p", "min_p", "seed")}

    def prompts(self) -> list[str]:
        """What to continue."""
        from foretoken.train.texts import read_texts

        if self.limit < 1:
            raise ConfigError(f"option `--limit` cannot be {self.limit}", hint="training takes a few hundred prompts")
        return read_texts([Path(file) for file in self.data], self.limit)


@grouped
def acceptance_head(
    *,
    options: PredictorOptions,
    temperature: Annotated[
        list[float], typer.Option(metavar="T", help="A temperature to learn acceptance at. Repeatable.")
    ] = [0.0, 1.0],  # noqa: B006 - typer's way
    mix: Annotated[float, typer.Option(metavar="R", help="Share of target tokens in what the head reads.")] = 0.15,
    reject_weight: Annotated[float, typer.Option(metavar="W", help="How much heavier a rejection weighs.")] = 1.0,
    depth: Annotated[int, typer.Option(metavar="N", help="Residual blocks; 0 is a linear probe.")] = 1,
    tied: Annotated[bool, typer.Option("--tied", help="One set of weights for all blocks.")] = False,
    dropout: Annotated[float, typer.Option(metavar="R", help="Share of the state withheld while training.")] = 0.5,
    epochs: Annotated[int, typer.Option(metavar="N", help="Passes over the data, each freshly mixed.")] = 6,
    models: ModelOptions,
) -> None:
    """Train the acceptance head of SpecDec++ for a target and a draft.

    Interrupted and run again with the same FOLDER, it goes on where it was. Put the head beside the draft's weights, or
    name it with --length.file, and use it with --length specdec++.
    """
    from foretoken.train.acceptance_head import Recipe, train

    recipe = Recipe(
        temperatures=tuple(temperature),
        mix=mix,
        reject_weight=reject_weight,
        depth=depth,
        tied=tied,
        dropout=dropout,
        epochs=epochs,
        **options.recipe(),
    )
    _train("acceptance-head", options, models, partial(train, recipe=recipe))


@grouped
def disco(
    *,
    options: PredictorOptions,
    temperature: Annotated[
        list[float], typer.Option(metavar="T", help="A temperature to learn acceptance at. Repeatable.")
    ] = [0.0, 1.0],  # noqa: B006 - typer's way
    most: Annotated[int, typer.Option(metavar="N", help="Greatest depth trained on.")] = 20,
    hidden: Annotated[int, typer.Option(metavar="N", help="Width of the hidden layer.")] = 64,
    epochs: Annotated[int, typer.Option(metavar="N", help="Passes over the data, each at fresh depths.")] = 10,
    models: ModelOptions,
) -> None:
    """Train DISCO's classifier for a target and a draft.

    Interrupted and run again with the same FOLDER, it goes on where it was. Put the classifier beside the draft's
    weights, or name it with --length.file, and use it with --length disco.
    """
    from foretoken.train.disco import Recipe, train

    recipe = Recipe(temperatures=tuple(temperature), most=most, hidden=hidden, epochs=epochs, **options.recipe())
    _train("disco", options, models, partial(train, recipe=recipe))


def _train(
    name: str,
    options: PredictorOptions,
    models: ModelOptions,
    train: Callable[..., AcceptancePredictor],
) -> None:
    """Train, save and show."""
    prompts = options.prompts()
    llm = options.open(models)
    folder = Path(options.out)
    with training_bar(options.quiet) as tell:
        net = train(llm, prompts, work=folder / "work", progress=tell)
    net.card["data"] = [Path(file).name for file in options.data]
    net.save(folder / net.file_name)
    options.report(name, net.card, lambda: _show(net.card, folder / net.file_name))


def _show(card: dict[str, Any], path: Path) -> None:
    """What it is worth on examples it never saw."""
    console = stdout()
    console.print(f"{path}\n")
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for head in ("predicted", "observed", "tokens"):
        table.add_column(head, justify="right")
    for row in card["reliability"]:
        table.add_row(f"{row['predicted']:.3f}", f"{row['observed']:.3f}", str(row["count"]))
    console.print(table)
    before, after = card["calibration_error_before"], card["calibration_error"]
    console.print(f"\ncalibration error {after:.3f} (before calibration {before:.3f})")
    console.print(
        f"divergence {card['divergence']:.3f} nats (a constant guess: {card['divergence_of_mean']:.3f}), "
        f"{card['num_tokens']} tokens of {card['num_examples']} continuations"
    )
