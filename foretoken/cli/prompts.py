"""Where prompts come from: the command line, standard input, a file of JSON lines, or a dataset of the hub."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from foretoken.cli.hub import HubDataset
from foretoken.errors import ConfigError, RequestError

COLUMNS = ("prompt", "turns", "question", "instruction", "text")


@dataclass(frozen=True, slots=True)
class Source:
    """One prompt, and what its file says about it.

    Attributes:
        text: the prompt.
        id: its name.
        category: what kind of prompt it is.
    """

    text: str
    id: str | int | None = None
    category: str | None = None

    def to_json(self) -> dict[str, str | int]:
        """The prompt, behind its name if it has one."""
        return {"prompt": self.text} if self.id is None else {"id": self.id, "prompt": self.text}


def from_words(prompt: str | None) -> list[Source]:
    """The prompt given, behind what was piped in, if anything was.

    Raises:
        RequestError: there is neither.
    """
    piped = read_stdin() if prompt == "-" or not sys.stdin.isatty() else ""
    parts = [piped.removesuffix("\n"), prompt if prompt is not None and prompt != "-" else ""]
    text = "\n".join(part for part in parts if part)
    if not text.strip():
        raise RequestError(
            "the prompt is empty", hint='write it in quotes, such as `foretoken generate "Hi"`, or pipe it in'
        )
    return [Source(text)]


def from_file(path: str, limit: int | None) -> list[Source]:
    """Prompts of a file of JSON lines, or of a dataset of the hub where there is no such file.

    Args:
        path: the file, or `owner/name[/config][:split][:column]`; `-` is standard input.
        limit: how many rows to take at most.

    Raises:
        RequestError: it cannot be read, or a row holds no prompt.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"option `--limit` cannot be {limit}", hint="take at least one prompt")
    if dataset := HubDataset.parse(path):
        columns = COLUMNS if dataset.column is None else (dataset.column,)
        return [_source(row, f"`{path}` row {n}", columns) for n, row in enumerate(dataset.rows(limit), 1)]
    lines = [(number, line) for number, line in enumerate(_read(path).splitlines(), 1) if line.strip()]
    if not lines:
        raise RequestError(f"no prompts in `{path}`", hint='each line is a JSON object such as {"prompt": "Hi"}')
    return [_row(line, f"`{path}` line {number}") for number, line in lines[:limit]]


def read_stdin() -> str:
    """All of standard input.

    Raises:
        RequestError: it is not text.
    """
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise RequestError(f"standard input is not text: {error.reason}", hint="send UTF-8") from error


def _read(path: str) -> str:
    if path == "-":
        return read_stdin()
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise RequestError(f"cannot read `{path}`: {reason}", hint="`--prompts` takes a file of JSON lines") from error


def _row(line: str, where: str) -> Source:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise RequestError(f"{where} is not JSON: {error.msg}", hint="each line is one JSON object") from error
    return _source(row if isinstance(row, dict) else {}, where, COLUMNS)


def _source(row: dict[str, Any], where: str, columns: Sequence[str]) -> Source:
    """The prompt in the first of these columns that a row has: a text, or texts of which the first is used."""
    found = next((row[column] for column in columns if row.get(column)), None)
    text = next(iter(found), None) if isinstance(found, list) else found
    if not isinstance(text, str) or not text.strip():
        hint = f"each row has a text, or a list of them, under {' or '.join(f'`{column}`' for column in columns)}"
        raise RequestError(f"{where} holds no prompt", hint=hint)
    if found is row.get("instruction") and row.get("input"):
        text = f"{text}\n{row['input']}"
    return Source(text, row.get("id", row.get("question_id")), row.get("category"))
