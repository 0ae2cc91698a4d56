"""`foretoken demo`: the same answers plain and speculatively, and how much sooner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from foretoken.cli.command import grouped
from foretoken.cli.compare import Comparison, compare
from foretoken.cli.hardware import hardware
from foretoken.cli.interrupt import Interrupt
from foretoken.cli.loading import config_json, dtype_name, load_weights, lossless, open_llm
from foretoken.cli.marks import Marker, legend
from foretoken.cli.options import ModelOptions, OutputOptions, SamplingOptions, in_models
from foretoken.cli.output import note, print_json, progress, say, stdout
from foretoken.cli.prompts import Source, from_file
from foretoken.errors import ConfigError

if TYPE_CHECKING:
    from foretoken.llm import LLM
    from foretoken.metrics import Stats
    from foretoken.models.source import LoadedModel
    from foretoken.request import Request

PROMPTS = files("foretoken") / "data" / "prompts" / "demo.jsonl"
EXAMPLES = ("foretoken demo", "foretoken demo --length fixed:2 --repeat 5 --json")
DIFFERENT = 3  # exit code


@dataclass(frozen=True)
class DemoModels(ModelOptions):
    """As elsewhere, but in float32: there is no rounding worth the name, so the texts must be identical."""

    dtype: Annotated[str, in_models(metavar="DTYPE", help="auto, float32, bfloat16 or float16.")] = "float32"


@grouped
def demo(
    *,
    models: DemoModels,
    max_new_tokens: Annotated[int, typer.Option(metavar="N", help="Tokens per answer, at most.")] = 64,
    repeat: Annotated[int, typer.Option(metavar="N", help="Answer each prompt this often; medians count.")] = 3,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, notes or warnings.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Tracebacks and library messages.")] = False,
) -> None:
    """Answer five prompts twice, by the target alone and with a draft, and compare text and speed.

    Exits with 3 if the texts differ although float32 and the acceptance rule promise that they do not.
    """
    if repeat < 1:
        raise ConfigError(f"option `--repeat` cannot be {repeat}", hint="each prompt is answered at least once")
    output = OutputOptions(json=json, quiet=quiet, debug=debug)
    sources = from_file(str(PROMPTS), None)
    llm = open_llm(models, output)
    options = SamplingOptions(max_new_tokens=max_new_tokens, seed=0)
    requests = [options.request(llm, source.text) for source in sources]
    load_weights(llm, output)
    if not json:
        _introduce(llm)
    done = _answer_all(llm, sources, requests, repeat, output)
    if json:
        print_json("demo/1", _json(llm, requests[0], sources, done))
    elif done:
        _conclude(sources, done)
    if len(done) < len(sources):
        if not quiet:
            note("interrupted")
        raise typer.Exit(130)
    if any(one.difference for one in done) and dtype_name(llm) == "float32" and lossless(llm):
        say("error", "the texts differ, which float32 and a lossless rule rule out", "please report it, with --json")
        raise typer.Exit(DIFFERENT)


def _answer_all(
    llm: LLM, sources: list[Source], requests: list[Request], repeat: int, output: OutputOptions
) -> list[Comparison]:
    """Compare prompt by prompt, showing each as it is done; fewer than there are prompts when interrupted."""
    done: list[Comparison] = []
    with Interrupt() as interrupt:
        with progress("warming up", output.quiet):
            compare(llm, requests[0], 1, interrupt)  # the first forwards are slower; they are not counted
        for number, (source, request) in enumerate(zip(sources, requests, strict=True), 1):
            with progress(f"answering prompt {number} of {len(sources)}", output.quiet):
                comparison = compare(llm, request, repeat, interrupt)
            if comparison is None:
                break
            done.append(comparison)
            if not output.json:
                _show(llm, source, request, comparison)
    return done


def _introduce(llm: LLM) -> None:
    """What is compared, and how to read it."""
    console = stdout()
    console.print(
        "Each prompt is answered twice: by the target alone, and with a draft that\n"
        "guesses ahead. The target checks every guess, so the text stays its own."
    )
    if llm.target.location.startswith("builtin:"):
        console.print("The built-in models are tiny: what they say is fluent and often wrong.")
    target, draft = llm.models
    console.print()
    console.print(Text(f"target  {llm.target.location}, {_size(target)} parameters", "dim"))
    if llm.draft and draft:
        console.print(Text(f"draft   {llm.draft.location}, {_size(draft)} parameters", "dim"))
    first = f"{llm.methods['first'].name}, else " if "first" in llm.methods else ""
    used = [f"{station} {llm.methods[station].name}" for station in ("length", "shape", "accept")]
    console.print(Text(f"using   draft {first}{llm.methods['draft'].name}, {', '.join(used)}", "dim"))
    console.print(Text(f"        {dtype_name(llm)} on {target.device}, threads: {hardware()['threads']}", "dim"))
    console.print(Text.assemble(("marks   ", "dim"), legend()))


def _size(model: LoadedModel) -> str:
    """Number of parameters, in millions."""
    return f"{model.num_parameters / 1e6:,.1f} million"


def _show(llm: LLM, source: Source, request: Request, comparison: Comparison) -> None:
    """One prompt, and its answer once, with marks."""
    answer = comparison.speculative
    marked = Marker(llm.tokenizer, request.stop).mark(answer.token_ids, answer.origins, final=True)
    marked.rstrip()
    console = stdout()
    console.print(Text.assemble("\n", ("> ", "dim"), (source.text, "bold")))
    for line in marked.wrap(console, console.width - 2):
        console.print(Text("  ") + line)


def total_stats(done: Sequence[Comparison]) -> tuple[Stats, Stats]:
    """Sums over all prompts, plain and speculative."""
    from foretoken.metrics import Stats, total

    each = [one.stats for one in done]
    plain, speculative = (
        Stats(total(pair[side].counts for pair in each), sum(pair[side].seconds for pair in each)) for side in (0, 1)
    )
    return plain, speculative


def _conclude(sources: list[Source], done: list[Comparison]) -> None:
    """Both speeds of every prompt, and of all of them together."""
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    table.add_column("")
    for head in ("plain\ntokens/s", "with draft\ntokens/s", "times\nas fast", "tokens per\ntarget forward"):
        table.add_column(head, justify="right")
    table.add_column("\ntext")
    for source, one in zip(sources, done, strict=False):
        table.add_row(str(source.id), *_speeds(one.stats), _verdict(one))
    same = sum(one.difference is None for one in done)
    table.add_row()
    table.add_row("all", *_speeds(total_stats(done)), f"{same} of {len(done)} the same", style="bold")
    console = stdout()
    console.print("", table, sep="\n")
    for source, one in zip(sources, done, strict=False):
        if one.difference:
            gap = f"{one.difference.top2_logit_gap:.2g}"
            console.print(f"\n{source.id}: where the texts part, the target's two best logits are {gap} apart")


def _speeds(stats: tuple[Stats, Stats]) -> list[str]:
    plain, speculative = stats
    rates = f"{plain.tokens_per_s:.1f}", f"{speculative.tokens_per_s:.1f}"
    return [*rates, f"{speculative.tokens_per_s / plain.tokens_per_s:.2f}", f"{speculative.block_efficiency:.2f}"]


def _verdict(one: Comparison) -> str:
    return f"differs at {one.difference.index}" if one.difference else "the same"


def _json(llm: LLM, request: Request, sources: list[Source], done: list[Comparison]) -> dict[str, Any]:
    plain, speculative = total_stats(done)
    both = plain.tokens_per_s and speculative.tokens_per_s
    return {
        "prompts": [{**s.to_json(), **one.to_json()} for s, one in zip(sources, done, strict=False)],
        "identical": all(one.difference is None for one in done),
        "plain": plain.to_json(),
        "speculative": speculative.to_json(),
        "ratio": speculative.tokens_per_s / plain.tokens_per_s if both else None,
        "lossless": lossless(llm),
        "seed": request.seed,
        "config": config_json(llm, request),
        "hardware": hardware(),
    }
