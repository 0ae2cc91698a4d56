"""Texts to train on, from the row formats people have, and where each of them comes from."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from foretoken.errors import RequestError

HINT = "rows have `prompt`, `turns`, `instruction` (with `input`), `question` or `text`"
UNSTATED = "not stated"


@dataclass(frozen=True, slots=True)
class Document:
    """A text to learn from.

    Attributes:
        prompt: what is asked, or None where the text is no answer.
        text: the answer, or the whole text.
    """

    prompt: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Source:
    """A file or data set, and what a model card has to say of it.

    Attributes:
        name: of the file, or of the data set.
        licence: as its owner states it.
        sha256: of the file, or of the rows of a data set.
        rows: where in it each row is, and the row.
    """

    name: str
    licence: str
    sha256: str
    rows: list[tuple[str, dict[str, Any]]] = field(repr=False)

    @classmethod
    def of_file(cls, path: Path, licence: str = UNSTATED) -> Source:
        """Read .jsonl or .jsonl.gz.

        Raises:
            RequestError: it is missing, or a line is no JSON object.
        """
        if not path.is_file():
            raise RequestError(f"there is no file `{path}`", hint="give .jsonl or .jsonl.gz files")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(path.name, licence, digest, list(_rows(path)))

    @classmethod
    def of_rows(cls, name: str, rows: Iterable[Mapping[str, Any]], licence: str = UNSTATED) -> Source:
        """Take rows that are here already."""
        listed = [dict(row) for row in rows]
        digest = hashlib.sha256(json.dumps(listed, sort_keys=True, default=str).encode()).hexdigest()
        return cls(name, licence, digest, [(f"`{name}` row {n}", row) for n, row in enumerate(listed, 1)])

    def documents(self) -> list[Document]:
        """What can be learnt from: questions with their answers, and plain texts.

        Raises:
            RequestError: a row is neither.
        """
        found = []
        for where, row in self.rows:
            try:
                found.append(_document(row))
            except LookupError as error:
                hint = "rows have `text`, `instruction` (with `input`) and `output`, or `question` and `answer`"
                raise RequestError(f"{where}: nothing to learn from (no {error})", hint=hint) from error
        return found

    def documents_of(self, prompts: Container[str]) -> list[Document]:
        """What can be learnt from the rows that ask one of these prompts; a row without an answer gives nothing."""
        found = []
        for _, row in self.rows:
            with suppress(LookupError):
                if prompts_of(row)[0] in prompts:
                    found.append(_document(row))
        return found

    def prompts(self, limit: int | None = None) -> list[str]:
        """What can be asked of each row.

        Raises:
            RequestError: there is nothing to ask.
        """
        found = []
        for where, row in self.rows[:limit]:
            try:
                found.append(prompts_of(row)[0])
            except (LookupError, TypeError) as error:
                raise RequestError(f"{where}: no prompt ({error})", hint=HINT) from error
        return found

    def to_json(self) -> dict[str, Any]:
        """Its lines in a model card."""
        return {**{k: v for k, v in asdict(self).items() if k != "rows"}, "rows": len(self.rows)}


def read_texts(paths: Sequence[Path], limit: int) -> list[str]:
    """Prompts of .jsonl or .jsonl.gz files, taken evenly from each, in file order.

    Raises:
        RequestError: a file is missing, a row cannot be read, or there is nothing in them.
    """
    return even_prompts([Source.of_file(path) for path in paths], limit)


def even_prompts(sources: Sequence[Source], limit: int) -> list[str]:
    """Prompts taken evenly from each source, in order.

    Raises:
        RequestError: a row holds none, or there is nothing in them.
    """
    share = -(-limit // max(len(sources), 1))
    texts = [text for source in sources for text in source.prompts(share)]
    if not texts:
        raise RequestError("there is nothing to train on", hint=HINT)
    return texts[:limit]


def prompts_of(row: Mapping[str, Any]) -> list[str]:
    """Everything a row asks, the first question first.

    `text` rows have no question, so their first 200 characters serve as the prompt.

    Raises:
        LookupError: it asks nothing.
    """
    if "turns" in row and "prompt" not in row:
        return [str(turn) for turn in row["turns"]]
    for key in ("prompt", "instruction", "question"):
        if key in row:
            return ["\n".join(str(part) for part in (row[key], row.get("input")) if part)]
    return [str(row["text"])[:200]]


def _document(row: Mapping[str, Any]) -> Document:
    if "text" in row:
        return Document(None, str(row["text"]))
    answer = next((key for key in ("output", "answer", "response", "completion") if key in row), "output")
    return Document(prompts_of(row)[0], str(row[answer]))


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}, line {number}", _object(line, f"{path}, line {number}")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read `{path}`: {error}", hint="give .jsonl or .jsonl.gz files") from error


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise RequestError(f"{where} is not JSON: {error}", hint="each line is one JSON object") from error
    if not isinstance(row, dict):
        raise RequestError(f"{where} is no JSON object", hint=HINT)
    return row
