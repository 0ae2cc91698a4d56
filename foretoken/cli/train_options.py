"""Options that several trainings share, as groups; each field is one option."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretoken.cli.loading import open_llm
from foretoken.cli.options import ModelOptions, OutputOptions, in_output
from foretoken.cli.output import print_json
from foretoken.cli.sources import evaluation_prompts, open_sources

if TYPE_CHECKING:
    from foretoken.llm import LLM
    from foretoken.train.pair import Data


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What every training takes."""

    data: Annotated[list[str], typer.Option(metavar="FILE", help="Prompts, .jsonl or .jsonl.gz. Repeatable.")]
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where weights, card and checkpoints go.")]
    seed: Annotated[int, typer.Option(metavar="N", help="Of everything random.")] = 0
    as_json: Annotated[bool, in_output("--json", help="The card as one JSON object on stdout.")] = False
    quiet: Annotated[bool, in_output("--quiet", help="No progress, notes or warnings.")] = False
    debug: Annotated[bool, in_output("--debug", help="Tracebacks and library messages.")] = False

    def open(self, models: ModelOptions, **fixed: Any) -> LLM:
        """Check the models and what of their options is `fixed`; loads no weights.

        Training reads what torch computes: another backend rounds otherwise, and has no gradients.
        """
        output = OutputOptions(json=self.as_json, quiet=self.quiet, debug=self.debug)
        return open_llm(replace(models, backend="torch", **fixed), output)

    def report(self, name: str, card: dict[str, Any], show: Callable[[], None]) -> None:
        """Print the card of a training, or let it be shown."""
        if self.as_json:
            print_json(f"train.{name}/1", card)
        else:
            show()


@dataclass(frozen=True, kw_only=True)
class TextOptions(TrainingOptions):
    """What a training from texts takes, too."""

    data: Annotated[
        list[str], typer.Option(metavar="FILE", help="Texts, .jsonl or .jsonl.gz, or a data set. Repeatable.")
    ]
    licence: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=LICENCE", help="Of a file or data set, for the card. Repeatable."),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Evaluation prompts: texts that hold one are left out. Repeatable."),
    ] = None

    def read(self) -> Data:
        """The texts, and what must not be in them."""
        from foretoken.train.pair import Data

        return Data(open_sources(self.data, self.licence or ()), evaluation_prompts(self.exclude or ()))
