"""Everything foretoken raises on purpose.

ForetokenError            catch this one
├── ConfigError           a method, option or combination that cannot work (exit code 2)
├── RequestError          a prompt or sampling parameter that cannot be served (exit code 2)
├── ModelError            a checkpoint that is missing, broken or unsuitable (exit code 2)
└── GenerationError       something went wrong while generating (exit code 1)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ForetokenError(Exception):
    """Base of all errors: what happened, with the value, and a hint that says what to do.

    Attributes:
        hint: one sentence the user can act on, or None.
        exit_code: what a command line exits with.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")


class ConfigError(ForetokenError):
    """A method, option or combination that cannot work; found before any weights are loaded."""

    exit_code = 2


class RequestError(ForetokenError):
    """A prompt or sampling parameter that cannot be served."""

    exit_code = 2


class ModelError(ForetokenError):
    """A checkpoint that is missing, broken or unsuitable."""

    exit_code = 2


class GenerationError(ForetokenError):
    """Generation failed while running."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest known word, if one is close, and lists all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    listing = ", ".join(names) if names else "none"
    return f"did you mean `{close[0]}`? Known: {listing}" if close else f"known: {listing}"
