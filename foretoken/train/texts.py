"""Prompts to train on, from the row formats people have."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from foretoken.errors import RequestError

HINT = "rows have `prompt`, `turns`, `instruction` (with `input`) or `text`"


def read_texts(paths: Sequence[Path], limit: int) -> list[str]:
    """Prompts of .jsonl or .jsonl.gz files, taken evenly from each, in file order.

    `text` rows have no question, so their first 200 characters serve as the prompt.

    Raises:
        RequestError: a file is missing, a row cannot be read, or there is nothing in them.
    """
    share = -(-limit // max(len(paths), 1))
    texts = [text for path in paths for text in _first(path, share)]
    if not texts:
        raise RequestError("there is nothing to train on", hint=HINT)
    return texts[:limit]


def _first(path: Path, count: int) -> list[str]:
    if not path.is_file():
        raise RequestError(f"there is no file `{path}`", hint="give .jsonl or .jsonl.gz files")
    texts: list[str] = []
    for number, line in _lines(path):
        if len(texts) == count:
            break
        try:
            texts.append(_prompt(json.loads(line)))
        except (ValueError, LookupError, TypeError) as error:
            raise RequestError(f"{path}, line {number}: no prompt ({error})", hint=HINT) from error
    return texts


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line


def _prompt(row: dict[str, Any]) -> str:
    if "prompt" in row:
        return str(row["prompt"])
    if "turns" in row:
        return str(row["turns"][0])
    if "instruction" in row:
        return "\n".join(str(part) for part in (row["instruction"], row.get("input")) if part)
    return str(row["text"])[:200]
