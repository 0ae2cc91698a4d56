"""`foretoken chat`: a conversation that keeps its history."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import typer

from foretoken.cli.command import grouped
from foretoken.cli.interrupt import Interrupt
from foretoken.cli.loading import load_weights, open_llm
from foretoken.cli.options import ModelOptions, OutputOptions, SamplingOptions
from foretoken.cli.output import note, one_terminal, print_json, say
from foretoken.cli.printer import Printer
from foretoken.cli.report import completion_json, costs_json, print_stats
from foretoken.errors import RequestError, did_you_mean

if TYPE_CHECKING:
    from foretoken.llm import LLM

EXAMPLES = (
    "foretoken chat --temperature 0.8 --show-draft",
    "printf 'Hello!\\nTell me a story.\\n' | foretoken chat --max-new-tokens 64 --json",
)
COMMANDS = ("/exit", "/reset")


@grouped
def chat(*, models: ModelOptions, sampling: SamplingOptions, output: OutputOptions) -> None:
    """Talk to a model, one line per turn.

    /reset starts over, /exit or Ctrl-D leaves, Ctrl-C ends an answer. Lines may also be piped in.
    """
    llm = open_llm(models, output)
    if not llm.tokenizer.backend.chat_template:
        hint = "use `foretoken generate`, which takes plain text"
        raise RequestError(f"`{models.target}` has no chat template, so it cannot hold a conversation", hint=hint)
    sampling.request(llm, "Hi")  # so that a parameter out of range is found before the weights are loaded
    load_weights(llm, output)
    conversation = Conversation(llm, sampling, output)
    interactive = sys.stdin.isatty()
    if interactive and not output.quiet:
        note(f"{llm.target.location}: /reset starts over, /exit or Ctrl-D leaves, Ctrl-C ends an answer")
    for line in _lines(interactive):
        if line == "/exit":
            return
        try:
            cut = conversation.turn(line)
        except RequestError as error:
            if not interactive:
                raise
            say("error", str(error), error.hint)
        else:
            if cut and not interactive:
                raise typer.Exit(130)


@dataclass
class Conversation:
    """Messages so far, and the model that answers them."""

    llm: LLM
    sampling: SamplingOptions
    output: OutputOptions
    messages: list[dict[str, str]] = field(default_factory=list)

    def turn(self, line: str) -> bool:
        """Do what a line says: a command, or something to answer.

        Returns:
            Whether Ctrl-C ended the answer.

        Raises:
            RequestError: there is no such command, or the conversation has outgrown the context.
        """
        if line == "/reset":
            self.messages.clear()
            if not self.output.quiet:
                note("starting over")
        elif line.startswith("/"):
            raise RequestError(f"unknown command `{line}`", hint=did_you_mean(line, COMMANDS))
        elif line:
            return self._answer(line)
        return False

    def _answer(self, line: str) -> bool:
        asked = [*self.messages, {"role": "user", "content": line}]
        try:
            request = self.sampling.request(self.llm, asked)
        except RequestError as error:
            hint = "write /reset to start over" if self.messages else error.hint
            raise RequestError(f"the conversation does not fit any more: {error}", hint=hint) from error
        printer = Printer(self.llm, request, self.output)
        with Interrupt() as interrupt:
            run = self.llm.run([request])
            interrupt.follow(run, printer.event)
        printer.end()
        completion = run.completions()[0]
        if self.output.json:
            print_json("chat/1", {"messages": asked, **completion_json(self.llm, request, completion)})
        if self.output.stats:
            print_stats([completion.stats], completion.seed, costs_json(self.llm))
        if interrupt.asked and not self.output.quiet:
            note("answer ended early")
        self.messages = [*asked, {"role": "assistant", "content": completion.text}]
        return interrupt.asked


def _lines(interactive: bool) -> Iterator[str]:
    """Lines a user types or pipes in, stripped, until there are no more."""
    if not interactive:
        yield from (line.strip() for line in sys.stdin)
        return
    import readline  # noqa: F401 - gives `input` line editing and history

    while True:
        try:
            yield _ask()
        except EOFError:
            note("")  # behind the question mark, and never into the answers
            return
        except KeyboardInterrupt:
            note("\n/exit or Ctrl-D leaves")


def _ask() -> str:
    """One typed line; the question mark of it never goes into a file."""
    if one_terminal():
        return input("> ").strip()
    sys.stderr.write("> ")
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.strip()
