"""Prompts to compare methods on."""

from __future__ import annotations

import json
from pathlib import Path

from foretoken.errors import RequestError


def read_prompts(path: Path, limit: int | None = None) -> list[str]:
    """Prompts of a JSONL file: the `prompt` of each row, or the first of its `turns`.

    Raises:
        RequestError: the file is missing or a row cannot be read.
    """
    if not path.is_file():
        raise RequestError(f"there is no file `{path}`", hint="give a JSONL file whose rows have `prompt` or `turns`")
    prompts: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if limit is not None and len(prompts) >= limit:
            break
        if line.strip():
            prompts.append(_prompt(line, f"{path}, line {number}"))
    if not prompts:
        raise RequestError(f"`{path}` holds no prompts", hint="give a JSONL file whose rows have `prompt` or `turns`")
    return prompts


def _prompt(line: str, where: str) -> str:
    try:
        row = json.loads(line)
        text = row["prompt"] if "prompt" in row else row["turns"][0]
    except (ValueError, LookupError, TypeError) as error:
        raise RequestError(f"{where}: no prompt ({error})", hint="each row needs `prompt` or `turns`") from error
    if not isinstance(text, str):
        raise RequestError(f"{where}: the prompt is not text", hint="each row needs `prompt` or `turns`")
    return text
