"""What goes where: stdout carries the answer alone, everything else goes to stderr."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.text import Text

from foretoken import __version__


def stderr() -> Console:
    """A console on stderr; rich leaves colour out where NO_COLOR is set or stderr is no terminal."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def stdout() -> Console:
    """A console on stdout, for reports that are the answer themselves."""
    return Console(highlight=False, markup=False)


def say(kind: str, message: str, hint: str | None = None) -> None:
    """Print `error: ...` or `warning: ...` on stderr, and after a blank line what to do about it."""
    console = stderr()
    console.print(Text.assemble((f"{kind}:", "bold red" if kind == "error" else "bold yellow"), " ", message))
    if hint:
        console.print(Text.assemble("\n", ("hint:", "bold"), " ", hint))


def note(message: str) -> None:
    """A quiet line on stderr."""
    stderr().print(Text(message, "dim"))


def write(text: str) -> None:
    """A piece of the answer, on stdout now."""
    sys.stdout.write(text)
    sys.stdout.flush()


def print_json(schema: str, content: dict[str, Any]) -> None:
    """One line of JSON on stdout: what it is, which version wrote it, and the content."""
    record = {"schema": f"foretoken.{schema}", "version": __version__, **content}
    write(json.dumps(_finite(record), ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    """JSON has no infinities: they become null."""
    if isinstance(value, dict):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def one_terminal() -> bool:
    """Whether the answer and everything else reach the same eyes."""
    return sys.stdout.isatty() and sys.stderr.isatty()


def shows_progress(quiet: bool) -> bool:
    """Whether someone is watching stderr and has not asked for silence."""
    return sys.stderr.isatty() and not quiet and not os.environ.get("FORETOKEN_NO_PROGRESS")


@contextmanager
def progress(message: str, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A spinner while the block runs, if someone is watching; call what it yields to change the message.

    It also shows what the library logs meanwhile, such as how far a conversion is.
    """
    if not shows_progress(quiet):
        yield lambda message: None
        return
    # Few frames: a busy spinner would take time from what is measured.
    with stderr().status(Text(message, "dim"), refresh_per_second=4) as status:

        def update(message: str) -> None:
            status.update(Text(message, "dim"))

        with _heard(update):
            yield update


@contextmanager
def _heard(tell: Callable[[str], None]) -> Iterator[None]:
    """Tell what the library logs while the block runs."""
    log, handler = logging.getLogger("foretoken"), logging.Handler()
    handler.emit = lambda record: tell(record.getMessage())  # type: ignore[method-assign]
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
