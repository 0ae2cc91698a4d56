"""`foretoken bench`: methods side by side on the same prompts, interleaved, in one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from foretoken.cli.command import grouped
from foretoken.cli.hardware import hardware
from foretoken.cli.loading import config_json, lossless, open_llm
from foretoken.cli.options import ModelOptions, OutputOptions, SamplingOptions
from foretoken.cli.output import note, print_json, progress, say, stdout
from foretoken.cli.prompts import from_file
from foretoken.errors import ConfigError

PROMPTS = files("foretoken") / "data" / "prompts" / "demo.jsonl"
EXAMPLES = (
    "foretoken bench --methods plain,fixed:1..4,confidence",
    "foretoken bench --prompts gsm8k.jsonl --limit 20 --max-new-tokens 128 --dtype float32 --json",
)
DIFFERENT = 3  # exit code


@grouped
def bench(
    *,
    prompts: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A .jsonl file (`prompt` or `turns`); default: a small built-in set."),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Take at most this many rows of FILE.")] = None,
    methods: Annotated[
        str, typer.Option(metavar="LIST", help="Length policies: NAME, NAME:VALUE or NAME:1..4; `plain` is none.")
    ] = "plain,fixed:1..4,heuristic,confidence",
    repeat: Annotated[int, typer.Option(metavar="N", help="Rounds over all prompts.")] = 1,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 3 if a text differs from plain decoding; needs temperature 0.")
    ] = False,
    csv: Annotated[str | None, typer.Option(metavar="FILE", help="Write the table as CSV, too.")] = None,
    plot: Annotated[str | None, typer.Option(metavar="FILE", help="Draw the speed-ups (.svg or .png), too.")] = None,
    models: ModelOptions,
    sampling: SamplingOptions,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, every sample included.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, notes or warnings.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Tracebacks and library messages.")] = False,
) -> None:
    """Compare length policies with plain decoding, prompt by prompt in turn, at batch 1.

    Speed is that of decoding: prefill is timed apart, warm-up left out. On a busy machine trust the median over prompts
    more than the ratio of sums, in which one hiccup weighs as much as it lasted.
    """
    _refuse(repeat < 1, f"option `--repeat` cannot be {repeat}", "each prompt is answered at least once")
    _refuse(check and sampling.temperature != 0, "`--check` cannot compare sampled texts", "use `--temperature 0`")
    output = OutputOptions(json=json, quiet=quiet, debug=debug)
    from foretoken.bench.methods import names, variants
    from foretoken.bench.plot import check_plot, plot_speed_ups
    from foretoken.bench.report import summarise, to_csv
    from foretoken.bench.run import interleave

    drafting = names(methods)
    if plot:
        check_plot(Path(plot))
    for file in (csv, plot):
        _reserve(file)
    sources = from_file(prompts or str(PROMPTS), limit)
    llm = open_llm(models, output)
    requests = [sampling.request(llm, source.text) for source in sources]
    with progress(f"loading {llm.target.location}", quiet):
        chosen = variants(llm, drafting)
    with progress("warming up", quiet) as update:
        samples = list(interleave(chosen, requests, repeat, lambda done, of: update(f"{done} of {of} answers")))
    rows = summarise(samples)
    if csv:
        Path(csv).write_text(to_csv(rows), encoding="utf-8")
    config = config_json(llm, requests[0])
    if plot:
        plot_speed_ups(rows, _caption(config, len(sources)), Path(plot))
    if json:
        about = {"config": config, "hardware": hardware(), "lossless": lossless(llm)}
        print_json("bench/1", {"methods": rows, **about, "samples": [asdict(sample) for sample in samples]})
    else:
        _show(rows, len(sources))
    if sampling.temperature == 0:
        _tell_differences(rows, check, quiet)


def _refuse(bad: bool, what: str, hint: str) -> None:
    if bad:
        raise ConfigError(what, hint=hint)


def _tell_differences(rows: Sequence[dict[str, Any]], check: bool, quiet: bool) -> None:
    """Say which methods gave other texts than plain decoding; leave with an exit code if that was to be checked."""
    differing = ", ".join(row["method"] for row in rows if row["num_differing"])
    if differing and check:
        hint = "in half precision a tie may flip; `--dtype float32` decides"
        say("error", f"texts differ from plain decoding: {differing}", hint)
        raise typer.Exit(DIFFERENT)
    if differing and not quiet:
        note(f"some texts differ from plain decoding: {differing}")


def _reserve(file: str | None) -> None:
    """Find out now, not after the run, whether the file can be written."""
    try:
        if file:
            Path(file).touch()
    except OSError as error:
        raise ConfigError(f"cannot write `{file}`: {error.strerror}", hint="name a file in a folder you own") from error


def _caption(config: dict[str, Any], count: int) -> str:
    """What was measured, and on what."""
    where = hardware()
    pair = f"{config['target']}, {config['dtype']}, temperature {config['sampling']['temperature']:g}, batch 1"
    return f"{pair}, {count} prompts, {date.today()}\n{where['gpu'] or where['cpu']}, threads: {where['threads']}"


def _show(rows: Sequence[dict[str, Any]], count: int) -> None:
    """The table people read."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("\nmethod", no_wrap=True)
    heads = ("\ntokens/s", "speed-up\nof sums", "by prompt: median\n(quartiles)", "tokens per\nforward")
    for head in (*heads, "accepted", "discarded\nper token"):
        table.add_column(head, justify="right", no_wrap=True)
    best = max(row["speed_up_median"] for row in rows)
    for row in rows:
        table.add_row(
            row["method"],
            f"{row['tokens_per_s']:.1f}",
            f"{row['speed_up']:.2f}",
            f"{row['speed_up_median']:.2f} ({row['speed_up_low']:.2f}-{row['speed_up_high']:.2f})",
            f"{row['block_efficiency']:.2f}",
            f"{row['acceptance_rate']:.0%}" if row["num_tested"] else "",
            f"{row['discard_rate']:.2f}" if row["num_drafted"] else "",
            style="bold" if row["speed_up_median"] == best else "",
        )
    console = stdout()
    console.print(table)
    console.print(f"{count} prompts, {rows[0]['num_tokens']} tokens by plain decoding; decoding only, prefill apart.")
