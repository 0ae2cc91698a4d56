"""`foretoken train blockwise`, `falcon` and `pass`: drafters that live inside a frozen target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from foretoken.cli.command import grouped
from foretoken.cli.options import ModelOptions
from foretoken.cli.output import stdout
from foretoken.cli.train_bar import training_bar
from foretoken.cli.train_options import TextOptions
from foretoken.errors import ConfigError

if TYPE_CHECKING:
    from foretoken.models.bound import BoundNet

BLOCKWISE_EXAMPLES = (
    "foretoken train blockwise --data prompts.jsonl --out heads/mine.safetensors",
    "foretoken train blockwise --target owner/big --heads 6 --data a.jsonl --out heads/big.safetensors",
)
FALCON_EXAMPLES = (
    "foretoken train falcon --data prompts.jsonl --out falcon/mine.safetensors",
    "foretoken train falcon --target owner/big --width 1024 --data a.jsonl --out falcon/big.safetensors",
)
PASS_EXAMPLES = (
    "foretoken train pass --data prompts.jsonl --out pass/mine.safetensors",
    "foretoken train pass --target owner/big --ahead 3 --data a.jsonl --out pass/big.safetensors",
)


@dataclass(frozen=True, kw_only=True)
class InsideOptions(TextOptions):
    """What every training inside a target takes."""

    data: Annotated[
        list[str], typer.Option(metavar="FILE", help="What the target is asked, .jsonl, .jsonl.gz or a data set.")
    ]
    out: Annotated[str, typer.Option(metavar="FILE", help="The .safetensors file; checkpoints go to FILE.work.")]
    texts: Annotated[int, typer.Option(metavar="N", help="Answers of the target to learn from.")] = 800
    max_new_tokens: Annotated[int, typer.Option(metavar="N", help="Length of an answer.")] = 96
    temperature: Annotated[list[float], typer.Option(metavar="T", help="A temperature of the answers. Repeatable.")] = (
        field(default_factory=lambda: [0.0, 1.0])
    )
    rounds: Annotated[int, typer.Option(metavar="N", help="The best of them is kept.")] = 10
    steps: Annotated[int, typer.Option(metavar="N", help="Of the optimizer, per round.")] = 30
    batch: Annotated[int, typer.Option(metavar="N", help="Answers per step.")] = 8

    def recipe(self) -> dict[str, Any]:
        """Those of them that a recipe has."""
        same = ("texts", "max_new_tokens", "rounds", "steps", "batch", "seed")
        return {"temperatures": tuple(self.temperature), **{name: getattr(self, name) for name in same}}


@grouped
def blockwise(
    *,
    options: InsideOptions,
    heads: Annotated[int, typer.Option(metavar="N", help="Tokens drafted at most.")] = 4,
    width: Annotated[int, typer.Option(metavar="N", help="Of each head's hidden layer.")] = 768,
    memory: Annotated[int, typer.Option(metavar="N", help="Width of the small network that rescores.")] = 192,
    order: Annotated[int, typer.Option(metavar="N", help="Of the n-grams that rescore: 1 to 3.")] = 3,
    models: ModelOptions,
) -> None:
    """Train parallel heads on a target's last hidden state, and what rescores them.

    The target stays as it is. Interrupted and run again with the same FILE, it goes on where it was. Use the heads with
    --draft blockwise:FILE.
    """
    from foretoken.train.blockwise import Recipe, train

    recipe = Recipe(heads=heads, width=width, memory=memory, order=order, **options.recipe())
    _train("blockwise", options, models, partial(train, recipe=recipe))


@grouped
def falcon(
    *,
    options: InsideOptions,
    block: Annotated[int, typer.Option(metavar="K", help="Tokens drafted per forward of the head.")] = 2,
    width: Annotated[int, typer.Option(metavar="N", help="Of the head, a multiple of 64.")] = 384,
    glance: Annotated[float, typer.Option(metavar="R", help="Share of wrong tokens put right, at first.")] = 0.45,
    glance_last: Annotated[float, typer.Option(metavar="R", help="The same at the end.")] = 0.1,
    models: ModelOptions,
) -> None:
    """Train a small network on a target's hidden states that drafts several tokens per forward (Falcon).

    The target stays as it is. Interrupted and run again with the same FILE, it goes on where it was. Use it with
    --draft falcon:FILE.
    """
    from foretoken.train.falcon import Recipe, train

    recipe = Recipe(block=block, width=width, glance=glance, glance_last=glance_last, **options.recipe())
    _train("falcon", options, models, partial(train, recipe=recipe))


@grouped
def lookahead(
    *,
    options: InsideOptions,
    ahead: Annotated[int, typer.Option(metavar="N", help="Look-ahead tokens, and tokens drafted at most.")] = 4,
    cuts: Annotated[int, typer.Option(metavar="N", help="Places of an answer they are read at, per step.")] = 24,
    models: ModelOptions,
) -> None:
    """Train look-ahead embeddings, by which a target drafts for itself (PaSS).

    The target stays as it is. Interrupted and run again with the same FILE, it goes on where it was. Use them with
    --draft pass:FILE.
    """
    from foretoken.train.lookahead import Recipe, train

    recipe = Recipe(ahead=ahead, cuts=cuts, **options.recipe())
    _train("pass", options, models, partial(train, recipe=recipe))


def _train(name: str, options: InsideOptions, models: ModelOptions, train: Callable[..., BoundNet]) -> None:
    """Train, save and show."""
    path = Path(options.out)
    if path.suffix != ".safetensors":
        raise ConfigError(f"option `--out` cannot be `{path}`", hint=f"write a file, `{path}.safetensors` for one")
    data = options.read()
    llm = options.open(models, draft="none", length="fixed")
    begin = perf_counter()
    with training_bar(options.quiet) as tell:
        net = train(llm, data.sources, data.evaluation, work=path.with_suffix(".work"), progress=tell)
    net.card["seconds"] = perf_counter() - begin
    net.save(path)
    options.report(name, net.card, lambda: _show(net.card, path))


def _show(card: dict[str, Any], path: Path) -> None:
    """What was trained, and what it is worth on held-out answers."""
    console = stdout()
    console.print(f"{path}: {card['num_parameters_trained']:,} weights trained on {card['num_tokens']:,} tokens\n")
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for head in card["accepted_on_dev"][-1]:
        table.add_column(head.replace("_", " "), justify="right")
    for row in card["accepted_on_dev"]:
        table.add_row(
            *(str(row.get(key, "")) if key != "accepted" else f"{row[key]:.3f}" for key in card["accepted_on_dev"][-1])
        )
    console.print(table)
    console.print("\naccepted: tokens of a greedy draft that the target says, too, on held-out answers")
