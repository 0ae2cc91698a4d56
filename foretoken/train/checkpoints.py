"""What outlives an interruption: states of a training, finished lines of data, and what a work folder belongs to."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from foretoken.errors import ConfigError
from foretoken.models.store import write_whole

STATE = re.compile(r"round-(\d+)\.([0-9a-f]{16})\.pt")

log = logging.getLogger(__name__)


class Checkpoints:
    """States of a training, one file per round, each either whole or not there.

    A file is written aside and then renamed, and its name carries a hash of its content, so neither a process killed
    while writing nor a damaged disk can make training go on from a wrong state.

    Args:
        folder: where they are.
        keep: how many of the newest to keep; two, so that one may be damaged.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self._folder, self._keep = folder, keep

    def save(self, number: int, state: dict[str, Any]) -> None:
        """Write the state after round `number`, and forget those that are no longer kept."""
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / f"round-{number}.part"
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        path = self._folder / f"round-{number}.{_digest(part)}.pt"
        os.replace(part, path)
        kept = sorted({known for known, _ in self._files()})[-self._keep :]
        for known, other in self._files():
            if other != path and (known == number or known not in kept):
                other.unlink()

    def newest(self) -> tuple[int, dict[str, Any]] | None:
        """Number and state of the newest round that can be read; says so where a newer one cannot."""
        for number, path in sorted(self._files(), reverse=True):
            try:
                if _digest(path) != path.name.split(".")[1]:
                    raise ValueError("its content does not match its name")
                return number, torch.load(path, weights_only=True)
            except Exception as error:  # a broken archive raises many kinds
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                log.warning(f"checkpoint `{path}` is corrupt ({reason}); going on from the one before")
                path.unlink()
        return None

    def _files(self) -> list[tuple[int, Path]]:
        paths = self._folder.iterdir() if self._folder.is_dir() else ()
        return [(int(match[1]), path) for path in paths if (match := STATE.fullmatch(path.name))]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def claim(work: Path, identity: dict[str, Any]) -> None:
    """Bind a work folder to one training, so that resuming never mixes two.

    Raises:
        ConfigError: it belongs to another one.
    """
    work.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    mark = work / "identity"
    if mark.is_file() and mark.read_text() != digest:
        raise ConfigError(f"`{work}` holds another training", hint="give another folder, or remove this one")
    write_whole(mark, digest)


def remembered(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was decided once: read from a JSON file where there is one, else made and written there.

    Whatever depends on measured time goes through here, or a resumed training would not be the same.
    """
    if not path.is_file():
        write_whole(path, json.dumps(make(), indent=1))
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def grown(path: Path, total: int, group: int, make: Callable[[range], list[dict[str, Any]]]) -> Iterator[int]:
    """Grow a file of JSON lines group by group; finished groups that are there already are kept.

    Args:
        path: the file, a line per item.
        total: items wanted.
        group: items made at a time, and the unit of resuming.
        make: the items of a range, a function of the range alone.

    Yields:
        How many items there are, after each group.
    """
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []  # not a torn last one
    lines = lines[:total] if len(lines) >= total else lines[: len(lines) // group * group]
    write_whole(path, "".join(line + "\n" for line in lines))
    for start in range(len(lines), total, group):
        items = range(start, min(start + group, total))
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(item) + "\n" for item in make(items))
        yield items.stop
