"""`foretoken train draft`: a draft model for a target."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from foretoken.cli.command import grouped
from foretoken.cli.options import ModelOptions
from foretoken.cli.output import stdout
from foretoken.cli.train_bar import training_bar
from foretoken.cli.train_options import TextOptions

if TYPE_CHECKING:
    from foretoken.train.draft_recipe import Recipe

EXAMPLES = (
    "foretoken train draft --divergence tvd --interpolate 0.5 --budget 8m --data prompts.jsonl --out drafts/mine",
    "foretoken train draft --method scratch --target owner/big --budget 2h --data texts.jsonl.gz --out drafts/small",
)


@dataclass(frozen=True, kw_only=True)
class DraftOptions:
    """Where a draft starts, and how it learns."""

    method: Annotated[
        str, typer.Option(metavar="METHOD", help="Where it starts: scratch, distill (--draft) or prune (the target).")
    ] = "distill"
    budget: Annotated[
        str, typer.Option(metavar="BUDGET", help="All of the time to spend (90s, 3m, 2h), or tokens per stage (2e6).")
    ] = "10m"
    divergence: Annotated[
        str | None,
        typer.Option(metavar="D", help="fkl, rkl, jsd, tvd, or ce. Default: ce from scratch, else fkl."),
    ] = None
    beta: Annotated[float, typer.Option(metavar="B", help="Of jsd: near 0 it is like fkl, near 1 like rkl.")] = 0.5
    on_policy: Annotated[
        float, typer.Option(metavar="R", help="Share of the texts that the draft writes; the target writes the rest.")
    ] = 0.0
    temperature: Annotated[
        list[float], typer.Option(metavar="T", help="A temperature to learn and to select at. Repeatable.")
    ] = field(default_factory=lambda: [0.0, 1.0])
    max_new_tokens: Annotated[int, typer.Option(metavar="N", help="Length of the texts learnt from.")] = 128
    layers: Annotated[int | None, typer.Option(metavar="N", help="Layers, made or kept. Default: a third.")] = None
    width: Annotated[
        int | None, typer.Option(metavar="N", help="Width of a draft from scratch. Default: two thirds.")
    ] = None
    ffn: Annotated[float, typer.Option(metavar="R", help="Share of the FFN channels that pruning keeps.")] = 0.5
    learning_rate: Annotated[
        float | None, typer.Option(metavar="X", help="Peak rate. Default: by width and method.")
    ] = None
    interpolate: Annotated[
        float,
        typer.Option(metavar="R", help="Move the weights back to where they started: 0 not at all, 1 all the way."),
    ] = 0.0

    def recipe(self, seed: int) -> Recipe:
        """As the training takes them."""
        from foretoken.train.budget import Budget

        budget = Budget.parse(self.budget)  # before torch is loaded
        from foretoken.train.draft_recipe import Recipe

        rest = {k: v for k, v in asdict(self).items() if k not in ("budget", "temperature")}
        return Recipe(budget=budget, temperatures=tuple(self.temperature), seed=seed, **rest)


@grouped
def draft(*, options: TextOptions, learning: DraftOptions, models: ModelOptions) -> None:
    """Train a draft for a target on what the target says.

    The budget decides everything else; the draft of the best acceptance rate on held-out prompts is kept. Interrupted
    and run again with the same FOLDER, it goes on where it was. Use it with --draft FOLDER.
    """
    recipe = learning.recipe(options.seed)
    data = options.read()
    llm = options.open(models)
    from foretoken.train.draft import train_draft

    with training_bar(options.quiet) as tell:
        card = train_draft(llm, data, recipe, Path(options.out), tell)
    options.report("draft", card, lambda: _show(card, options.out))


def _show(card: dict[str, Any], out: str) -> None:
    """What it bought."""
    console = stdout()
    model = card["model"]
    console.print(f"{out}: {model['num_parameters']:,} weights, {model['share_of_target']:.0%} of the target's\n")
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for head in ("temperature", "acceptance before", "after"):
        table.add_column(head, justify="right")
    for row in card["acceptance"]:
        table.add_row(f"{row['temperature']:g}", f"{row['before']:.3f}", f"{row['after']:.3f}")
    console.print(table)
    loss = card["held_out_loss"]
    if loss["num_texts"]:
        console.print(
            f"\nheld-out loss {loss['before']:.3f} before, {loss['after']:.3f} after, in nats per token "
            f"({loss['num_texts']} texts)"
        )
