"""`foretoken generate`: answer a prompt, or a file of prompts in one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from foretoken.cli.command import grouped
from foretoken.cli.interrupt import Interrupt, leave_if_cancelled
from foretoken.cli.loading import load_weights, open_llm
from foretoken.cli.options import ModelOptions, OutputOptions, SamplingOptions, in_output
from foretoken.cli.output import note, print_json, progress, write
from foretoken.cli.printer import Printer, meter
from foretoken.cli.prompts import Source, from_file, from_words
from foretoken.cli.report import completion_json, costs_json, print_stats
from foretoken.errors import ConfigError

if TYPE_CHECKING:
    from foretoken.llm import LLM, Completion
    from foretoken.request import Request

EXAMPLES = (
    'foretoken generate "Write a Python function that returns the factorial of a number." --show-draft',
    "cat notes.txt | foretoken generate 'What is this about?' --length fixed:4 --temperature 0.7 --json",
)


@grouped
def generate(
    *,
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="[PROMPT]", help="What to answer; `-` is stdin. Text piped in goes before it.", show_default=False
        ),
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(metavar="FILE", help="A .jsonl file (`prompt` or `turns`), answered in one batch.")
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Take at most this many rows of FILE.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the prompt as it is, without chat template.")] = False,
    models: ModelOptions,
    sampling: SamplingOptions,
    output: OutputOptions,
    stream: Annotated[
        bool | None,
        in_output("--stream/--no-stream", help="Show text as it comes.", show_default=False),
    ] = None,
    logprobs: Annotated[
        int | None,
        in_output(metavar="N", help="With --json: log-probabilities, and N alternatives."),
    ] = None,
) -> None:
    """Answer a prompt: the text goes to stdout, everything else to stderr.

    Methods have options of their own, written --STATION.NAME VALUE, such as --length.threshold 0.3. `foretoken methods`
    lists them.
    """
    _refuse(prompt is not None and prompts is not None, "`PROMPT` and `--prompts` cannot be combined", "give one")
    _refuse(stream is True and output.json, "`--stream` and `--json` cannot be combined", "JSON comes when it is done")
    _refuse(
        stream is True and prompts is not None,
        "`--stream` and `--prompts` cannot be combined",
        "answers of a batch come at the same time, and are shown one after the other",
    )
    _refuse(
        limit is not None and prompts is None, "`--limit` without `--prompts` means nothing", "add `--prompts FILE`"
    )
    _refuse(logprobs is not None and not output.json, "`--logprobs` without `--json` means nothing", "add `--json`")
    sources = from_words(prompt) if prompts is None else from_file(prompts, limit)
    llm = open_llm(models, output)
    requests = [sampling.request(llm, source.text, raw=raw, logprobs=logprobs) for source in sources]
    load_weights(llm, output)
    live = prompts is None and stream is not False and not output.json
    completions = [_stream(llm, requests[0], output)] if live else _answer(llm, sources, requests, output)
    if output.stats:
        print_stats([one.stats for one in completions], completions[0].seed, costs_json(llm))
    leave_if_cancelled(completions, output.quiet)


def _refuse(given: bool, what: str, hint: str) -> None:
    if given:
        raise ConfigError(what, hint)


def _stream(llm: LLM, request: Request, output: OutputOptions) -> Completion:
    """Answer one prompt before the user's eyes."""
    printer = Printer(llm, request, output)
    with Interrupt() as interrupt:
        run = llm.run([request])
        interrupt.follow(run, printer.event)
    printer.end()
    return run.completions()[0]


def _answer(llm: LLM, sources: list[Source], requests: list[Request], output: OutputOptions) -> list[Completion]:
    """Answer prompts in one batch, and show the answers when all are done."""
    with Interrupt() as interrupt, progress("reading the prompt", output.quiet) as update:
        run = llm.run(requests)
        interrupt.follow(run, meter(run, update))
    completions = run.completions()
    for number, (source, request, completion) in enumerate(zip(sources, requests, completions, strict=True), 1):
        if len(sources) > 1 and not output.json and not output.quiet:
            note(f"{number}/{len(sources)}  {source.text.strip().splitlines()[0]}")
        Printer(llm, request, output).answer(completion)
        if output.json:
            print_json("generate/1", {**source.to_json(), **completion_json(llm, request, completion)})
        elif number < len(sources):
            write("\n")
    return completions
