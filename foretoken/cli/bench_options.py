"""What `foretoken bench` compares, on what."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated

import typer

from foretoken.cli.bench_simulation import read_costs
from foretoken.cli.options import SamplingOptions
from foretoken.cli.output import note
from foretoken.cli.prompts import Source, from_file
from foretoken.config import Method
from foretoken.errors import ConfigError

if TYPE_CHECKING:
    from foretoken.bench.grow import Growth

PROMPTS = files("foretoken") / "data" / "prompts" / "demo.jsonl"


@dataclass(frozen=True)
class BenchOptions:
    """What is compared."""

    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A .jsonl file (`prompt` or `turns`), or a dataset of the hub: owner/name[/config][:split][:column]. "
            "Default: a small built-in set.",
        ),
    ] = None
    limit: Annotated[int | None, typer.Option(metavar="N", help="Take at most this many prompts.")] = None
    methods: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Length policies: NAME, NAME:VALUE or NAME:1..4; `plain` is none, `oracle` knows what will be "
            "accepted. fixed:1..8 are added to a list without `fixed`.",
        ),
    ] = "plain,fixed:1..8,heuristic,confidence,renewal,oracle"
    grow_target: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Compare on the target grown without changing what it says: 4x,16x are multiples of its blocks' "
            "weights, 1x is the target itself.",
        ),
    ] = None
    no_baseline: Annotated[bool, typer.Option("--no-baseline", help="Add no fixed lengths to the list.")] = False
    repeat: Annotated[int, typer.Option(metavar="N", help="Rounds over all prompts.")] = 1
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Exit with 3 if a text differs from plain decoding in float32 (in another dtype the first prompt is "
            "answered again); needs temperature 0, or `--accept coupled`.",
        ),
    ] = False
    profile: Annotated[bool, typer.Option("--profile", help="Show where the time of a step goes.")] = False
    simulate: Annotated[
        bool,
        typer.Option("--simulate", help="Replay the methods on what drafting met, at other costs of a draft forward."),
    ] = False
    draft_costs: Annotated[
        str,
        typer.Option(
            metavar="LIST", help="With --simulate: target forwards a draft forward costs; `here` is measured."
        ),
    ] = "here,0.2,0.1,0.05"

    def sources(self) -> list[Source]:
        """The prompts.

        Raises:
            RequestError: there are none, or they cannot be read.
        """
        return from_file(self.prompts or str(PROMPTS), self.limit)

    def check_with(self, sampling: SamplingOptions, accept: str) -> None:
        """Refuse what cannot be run.

        Args:
            sampling: of all requests.
            accept: the rule, with its options.

        Raises:
            ConfigError: a number or combination that makes no sense.
        """
        if self.repeat < 1:
            raise ConfigError(
                f"option `--repeat` cannot be {self.repeat}", hint="each prompt is answered at least once"
            )
        read_costs(self.draft_costs)
        self.growths()
        if self.simulate and (sampling.sampling().looks_back or sampling.sampling().logit_bias):
            raise ConfigError("penalties and biases are not simulated", hint="leave them out, or `--simulate`")
        if self.check and sampling.temperature and not Method.parse("accept", accept).type.coupled:
            raise ConfigError(
                "`--check` cannot compare sampled texts", hint="use `--temperature 0`, or `--accept coupled`"
            )

    def growths(self) -> list[Growth | None]:
        """What the target grows to, one after the other; None is the target as it is.

        Raises:
            ConfigError: it cannot grow so.
        """
        from foretoken.bench.grow import Growth

        if self.grow_target is None:
            return [None]
        return list(dict.fromkeys(Growth.parse(text.strip()) for text in self.grow_target.split(",")))

    def drafting(self, quiet: bool) -> list[str]:
        """The methods to compare with plain decoding, with a baseline among them.

        Raises:
            ConfigError: a method that does not exist, or none.
        """
        from foretoken.bench.methods import BASELINE, names, with_baseline

        chosen = names(self.methods)
        if self.no_baseline or with_baseline(chosen) == chosen:
            return chosen
        if not quiet:
            note(f"added the baseline {BASELINE[0]} to {BASELINE[-1]}; `--no-baseline` leaves it out")
        return with_baseline(chosen)
