"""`foretoken bench`: methods side by side on the same prompts, interleaved, in one run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import date
from itertools import takewhile
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretoken import __version__
from foretoken.cli.bench_files import BenchFiles
from foretoken.cli.bench_options import BenchOptions
from foretoken.cli.bench_simulation import show_simulation, simulation
from foretoken.cli.bench_table import show, show_profile
from foretoken.cli.command import grouped
from foretoken.cli.hardware import hardware
from foretoken.cli.interrupt import Interrupt
from foretoken.cli.loading import config_json, dtype_name, load_weights, lossless, open_llm
from foretoken.cli.options import ModelOptions, OutputOptions, SamplingOptions
from foretoken.cli.output import note, print_json, progress, say
from foretoken.cli.prompts import Source
from foretoken.config import DEFAULTS, Method, default_draft
from foretoken.errors import ConfigError

if TYPE_CHECKING:
    from foretoken.bench.grow import Growth
    from foretoken.bench.run import Sample
    from foretoken.llm import LLM
    from foretoken.request import Request

EXAMPLES = (
    "foretoken bench --methods plain,fixed:1..4,confidence,oracle",
    "foretoken bench --prompts gsm8k.jsonl --limit 20 --max-new-tokens 128 --html report.html",
    "foretoken bench --prompts openai/gsm8k/main:test --limit 20 --dtype float32 --check --json",
    "foretoken bench --grow-target 1x,16x --methods plain,fixed:1..4,renewal",
)
DIFFERENT = 3  # exit code


@grouped
def bench(
    *,
    what: BenchOptions,
    write: BenchFiles,
    models: ModelOptions,
    sampling: SamplingOptions,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, every sample included.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, notes or warnings.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Tracebacks and library messages.")] = False,
) -> None:
    """Compare length policies with plain decoding, prompt by prompt in turn, at batch 1.

    Speed is that of decoding: prefill is timed apart, warm-up left out. On a busy machine trust the median over prompts
    more than the ratio of sums, in which one hiccup weighs as much as it lasted. The baseline to beat is the fixed
    length that turns out fastest. Ctrl-C ends it with what was measured by then. Fields of the JSON: docs/bench.md.
    """
    what.check_with(sampling, models.accept)
    output = OutputOptions(json=json, quiet=quiet, debug=debug)
    drafting, growths = what.drafting(quiet), what.growths()
    places = [write.named(str(growth)) if len(growths) > 1 else write for growth in growths]
    for place in places:
        place.reserve()
    sources = what.sources()
    models = _replayable(models, sampling, quiet) if what.simulate else models
    llm = open_llm(models, output)
    if what.simulate and llm.draft is None:
        raise ConfigError("there is no draft model whose draws `--simulate` could replay", hint="leave it out")
    drafting = _without_oracle(llm, drafting, sampling, quiet)
    requests = [sampling.request(llm, source.text) for source in sources]
    records = []
    for growth, place in zip(growths, places, strict=True):
        chosen = models if growth is None else _grown(llm, models, growth, quiet)
        one = llm if growth is None else open_llm(chosen, output)
        record, samples = _run(one, chosen, output, what, drafting, sources, requests)
        if growth is not None:
            record["config"]["target"] = f"{models.target} {growth}"
            record["growth"] = {
                **growth.to_json(),
                "num_parameters": one.models[0].num_parameters,
                "folder": chosen.target,
            }
        place.write(record, samples, llm.tokenizer.decode)
        if json:
            print_json("bench/1", record)
        else:
            show(record)
            if what.profile:
                show_profile(record["methods"])
            if record["simulation"]:
                show_simulation(record["simulation"])
        records.append(record)
        if not record["complete"]:
            raise typer.Exit(130)
    if sampling.temperature == 0 or llm.methods["accept"].type.coupled:
        _tell_differences(records, quiet)


def _replayable(models: ModelOptions, sampling: SamplingOptions, quiet: bool) -> ModelOptions:
    """The same with what can be replayed: the draft model alone, judged token by token."""
    first, then = Method.relay(models.draft or default_draft(models.target))
    if first is not None:
        models = replace(models, draft=then)
        if not quiet:
            note(f"`{first.name}` is left out: `--simulate` replays what a draft model draws")
    if sampling.temperature and models.accept in (DEFAULTS["accept"], "coupled"):
        given, models = models.accept, replace(models, accept="rejection")
        if not quiet:
            note(f"`{given}` gives way to `rejection`: `--simulate` judges one token after the other")
    return models


def _grown(llm: LLM, models: ModelOptions, growth: Growth, quiet: bool) -> ModelOptions:
    """The same models with the target grown, and the draft that the target as it is would have."""
    from foretoken.bench.grow import grow

    with progress(f"growing {models.target} {growth}", quiet):
        folder = grow(llm.target, growth)
    return replace(models, target=str(folder), draft=models.draft or default_draft(models.target))


def _run(
    llm: LLM,
    models: ModelOptions,
    output: OutputOptions,
    what: BenchOptions,
    drafting: Sequence[str],
    sources: Sequence[Source],
    requests: Sequence[Request],
) -> tuple[dict[str, Any], list[Sample]]:
    """Compare the methods on one target: the JSON object, and the samples it was made from."""
    from foretoken.bench.methods import variants
    from foretoken.bench.report import summarise
    from foretoken.bench.run import interleave

    quiet, rounds = output.quiet, len(requests) * what.repeat
    load_weights(llm, output)
    with progress(f"preparing {llm.target.location}", quiet) as update:
        chosen = variants(llm, drafting, requests, lambda done, of: update(f"oracle: {done} of {of} prompts"))
    with Interrupt() as interrupt, progress("warming up", quiet) as update:
        done = interleave(
            chosen, requests, what.repeat, lambda done, of: update(f"{done} of {of} answers"), profile=what.profile
        )
        samples = list(takewhile(lambda _: not interrupt.asked, done))
    if (whole := len(samples) // len(chosen)) < rounds:
        if not whole:
            raise KeyboardInterrupt
        if not quiet:
            note(f"interrupted: this is of {whole} answers of every method, not of {rounds}")
        what, samples = replace(what, check=False, simulate=False), samples[: whole * len(chosen)]
        sources = sources[:whole]
    rows = summarise(samples)
    record = {
        "version": __version__,
        **_summary(rows),
        "check": _check(llm, models, output, rows, requests[0]) if what.check else None,
        **_setup(llm, requests[0], sources, what.repeat),
        "complete": whole == rounds,
        "growth": None,
        "simulation": simulation(chosen, requests, samples, rows, what.draft_costs, quiet) if what.simulate else None,
        "samples": [asdict(sample) for sample in samples],
    }
    return record, samples


def _without_oracle(llm: LLM, drafting: list[str], sampling: SamplingOptions, quiet: bool) -> list[str]:
    """Leave the oracle out where chance decides what will be accepted."""
    from foretoken.bench.methods import ORACLE
    from foretoken.bench.oracle import foreseeable

    if ORACLE not in drafting or foreseeable(llm, sampling.sampling()):
        return drafting
    if not quiet:
        note(
            "the oracle is left out: it knows what comes of a draft model at temperature 0, or with `--accept coupled`"
        )
    return [name for name in drafting if name != ORACLE]


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The table, and what follows from it."""
    from foretoken.bench.plane import curves
    from foretoken.bench.report import best_fixed

    best = best_fixed({row["method"]: row["tokens_per_s"] for row in rows})
    return {"methods": list(rows), "best_fixed": best, "curves": curves(rows)}


def _setup(llm: LLM, request: Request, sources: Sequence[Source], repeat: int) -> dict[str, Any]:
    """What was run, on what."""
    from foretoken.bench.cards import calibration

    return {
        "num_prompts": len(sources),
        "repeat": repeat,
        "prompts": [asdict(source) for source in sources],
        "calibration": calibration(llm.draft.path) if llm.draft else {},
        "config": config_json(llm, request),
        "hardware": hardware(),
        "lossless": lossless(llm),
        "command": shlex.join(["foretoken", *sys.argv[1:]]),
        "date": str(date.today()),
    }


def _check(
    llm: LLM, models: ModelOptions, output: OutputOptions, rows: Sequence[dict[str, Any]], request: Request
) -> dict[str, Any]:
    """Which methods give other texts than plain decoding in float32: those just measured, or one prompt again."""
    from foretoken.bench.exactness import TOKENS, differing

    tokens = request.max_new_tokens
    if dtype_name(llm) == "float32":
        names = [row["method"] for row in rows if row["num_differing"]]
        return {"dtype": "float32", "first_prompt_only": False, "max_new_tokens": tokens, "differing": names}
    exact = open_llm(replace(models, dtype="float32"), output)
    with progress("checking in float32", output.quiet):
        names = differing(exact, [row["method"] for row in rows[1:]], request)
    return {"dtype": "float32", "first_prompt_only": True, "max_new_tokens": min(tokens, TOKENS), "differing": names}


def _tell_differences(records: Sequence[dict[str, Any]], quiet: bool) -> None:
    """Say which methods gave other texts than plain decoding; leave with an exit code if they failed the check."""
    failed = dict.fromkeys(name for record in records if record["check"] for name in record["check"]["differing"])
    if failed:
        hint = "float32 and a lossless rule rule that out; please report it, with --json"
        say("error", f"texts differ from plain decoding: {', '.join(failed)}", hint)
        raise typer.Exit(DIFFERENT)
    rows = (row for record in records for row in record["methods"])
    differing = ", ".join(dict.fromkeys(row["method"] for row in rows if row["num_differing"]))
    if differing and not quiet:
        note(f"some texts differ from plain decoding: {differing}; rounding may flip a tie, `--check` decides")
