"""Ctrl-C that stops between two steps, so that what was generated so far is whole."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

import typer

from foretoken.cli.output import note

if TYPE_CHECKING:
    from foretoken.llm import Completion, Run
    from foretoken.types import TokenEvent


class Interrupt:
    """Inside, the first Ctrl-C only asks to stop; a second one raises KeyboardInterrupt.

    Attributes:
        asked: whether there was a first one.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Interrupt:
        self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def follow(self, run: Run, show: Callable[[TokenEvent], None]) -> None:
        """Let a run proceed to its end, or until asked to stop, and show every event."""
        for event in run:
            show(event)
            if self.asked:
                for last in run.cancel():
                    show(last)


def leave_if_cancelled(completions: Iterable[Completion], quiet: bool) -> None:
    """Exit with 130 when an answer was cut off by Ctrl-C; what there is of it was shown."""
    if any(completion.finish_reason and completion.finish_reason.value == "cancelled" for completion in completions):
        if not quiet:
            note("interrupted")
        raise typer.Exit(130)
