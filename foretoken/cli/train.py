"""`foretoken train`: what has to be trained before it helps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from foretoken.cli.command import grouped
from foretoken.cli.loading import open_llm
from foretoken.cli.options import ModelOptions, OutputOptions
from foretoken.cli.output import print_json, progress, stdout
from foretoken.errors import ConfigError

HEAD_EXAMPLES = (
    "foretoken train acceptance-head --data prompts.jsonl --out heads/mine",
    "foretoken train acceptance-head --target owner/big --draft owner/small --data a.jsonl --out heads/small",
)


@grouped
def acceptance_head(
    *,
    data: Annotated[list[str], typer.Option(metavar="FILE", help="Prompts, .jsonl or .jsonl.gz. Repeatable.")],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where head, card and checkpoints go.")],
    limit: Annotated[int, typer.Option(metavar="N", help="Use at most this many prompts.")] = 1000,
    max_new_tokens: Annotated[int, typer.Option(metavar="N", help="Length of the sampled continuations.")] = 128,
    temperature: Annotated[float, typer.Option(metavar="T", help="Acceptance is learned at this temperature.")] = 0.0,
    top_k: Annotated[int, typer.Option(metavar="K", help="And with this top-k; 0 keeps all.")] = 0,
    top_p: Annotated[float, typer.Option(metavar="P", help="And with this top-p.")] = 1.0,
    min_p: Annotated[float, typer.Option(metavar="P", help="And with this min-p.")] = 0.0,
    mix: Annotated[float, typer.Option(metavar="R", help="Share of target tokens in what the head reads.")] = 0.15,
    reject_weight: Annotated[float, typer.Option(metavar="W", help="How much heavier a rejection weighs.")] = 6.0,
    depth: Annotated[int, typer.Option(metavar="N", help="Residual blocks; 0 is a linear probe.")] = 3,
    tied: Annotated[bool, typer.Option("--tied", help="One set of weights for all blocks.")] = False,
    epochs: Annotated[int, typer.Option(metavar="N", help="Passes over the data, each freshly mixed.")] = 3,
    seed: Annotated[int, typer.Option(metavar="N", help="Of everything random.")] = 0,
    models: ModelOptions,
    as_json: Annotated[bool, typer.Option("--json", help="The card as one JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, notes or warnings.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Tracebacks and library messages.")] = False,
) -> None:
    """Train the acceptance head of SpecDec++ for a target and a draft.

    Interrupted and run again with the same FOLDER, it goes on where it was. Put the head beside the draft's weights, or
    name it with --length.head, and use it with --length specdec++.
    """
    from foretoken.models.acceptance_head import CARD_NAME, FILE_NAME
    from foretoken.train.acceptance_head import Recipe, train
    from foretoken.train.texts import read_texts

    if limit < 1:
        raise ConfigError(f"option `--limit` cannot be {limit}", hint="a head needs a few hundred prompts")
    recipe = Recipe(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        mix=mix,
        reject_weight=reject_weight,
        depth=depth,
        tied=tied,
        epochs=epochs,
        seed=seed,
    )
    prompts = read_texts([Path(file) for file in data], limit)
    output = OutputOptions(json=as_json, quiet=quiet, debug=debug)
    # The head reads what torch computes; another backend rounds otherwise.
    llm = open_llm(replace(models, backend="torch"), output)
    folder = Path(out)
    with progress(f"loading {llm.target.location}", quiet) as update:
        head = train(llm, prompts, recipe, folder / "work", lambda stage, done, of: update(f"{stage} {done} of {of}"))
    head.card["data"] = [Path(file).name for file in data]
    head.save(folder / FILE_NAME)
    (folder / CARD_NAME).write_text(json.dumps(head.card, indent=1) + "\n", encoding="utf-8")
    if as_json:
        print_json("train.acceptance-head/1", head.card)
    else:
        _show(head.card, folder / FILE_NAME)


def _show(card: dict[str, Any], path: Path) -> None:
    """What the head is worth on examples it never saw."""
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
