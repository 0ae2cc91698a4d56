"""Shows answers to people: text on stdout, marks and progress on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from foretoken.cli.marks import Marker, legend
from foretoken.cli.options import OutputOptions
from foretoken.cli.output import one_terminal, stderr, write

if TYPE_CHECKING:
    from foretoken.llm import LLM, Completion, Run
    from foretoken.request import Request
    from foretoken.types import Origin, TokenEvent


class Printer:
    """Prints one answer, piece by piece or at once.

    With `--show-draft` the marked text follows on stderr; where both streams are the same terminal it stands in for the
    answer, which would otherwise appear twice.
    """

    def __init__(self, llm: LLM, request: Request, output: OutputOptions) -> None:
        self._marker = Marker(llm.tokenizer, request.stop) if output.show_draft else None
        self._instead = output.show_draft and one_terminal() and not output.json
        self._plain = not output.json and not self._instead
        self._marked = Text()
        self._last = "\n"

    def event(self, event: TokenEvent) -> None:
        """Show what one step added."""
        self._show(event.text, event.tokens, event.origins, final=event.finish is not None)

    def answer(self, completion: Completion) -> None:
        """Show all of an answer."""
        self._show(completion.text, completion.token_ids, completion.origins, final=True)
        self.end()

    def end(self) -> None:
        """End the last line, and explain the marks."""
        if self._plain and not self._last.endswith("\n"):
            write("\n")
        if self._marker:
            stderr().print(self._marked, legend(), sep="\n\n")

    def _show(self, text: str, tokens: Sequence[int], origins: Sequence[Origin], *, final: bool) -> None:
        if self._plain:
            write(text)
            self._last = text or self._last
        if self._marker:
            marked = self._marker.mark(tokens, origins, final=final)
            if self._instead:
                stderr().print(marked, end="")
            else:
                self._marked.append_text(marked)


def meter(run: Run, update: Callable[[str], None]) -> Callable[[TokenEvent], None]:
    """An event handler that keeps a line such as `412 tokens  87.0 tokens/s  3.1 tokens/step` up to date."""
    from foretoken.metrics import Stats, total

    started = time.perf_counter()

    def show(_: TokenEvent) -> None:
        stats = Stats(total(row.counts for row in run.rows), time.perf_counter() - started)
        rates = f"{stats.tokens_per_s:.1f} tokens/s  {stats.block_efficiency:.1f} tokens/step"
        update(f"{stats.counts.num_tokens} tokens  {rates}  accepted {stats.acceptance_rate:.0%}")

    return show
