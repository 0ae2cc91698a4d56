"""Folders that are made once and kept on disk: filled under another name, so that half of one never looks like one."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

ABANDONED = 3600.0  # seconds after which a half-filled folder is nobody's any more


def home(kind: str) -> Path:
    """Where folders of that kind are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "foretoken" / kind


def keep(folder: Path, last: str, fill: Callable[[Path], Any]) -> str | None:
    """Fill a folder under another name, then give it its own.

    Args:
        folder: what it shall be called.
        last: a file in it by which one that another process made meanwhile is known to be whole.
        fill: writes the files into the folder it is given.

    Returns:
        Why that was not possible, or None.
    """
    place = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        tidy(folder)
        place = Path(mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        fill(place)
        try:
            os.replace(place, folder)
        except OSError:
            if not (folder / last).is_file():  # else another process was faster
                raise
        return None
    except (OSError, RuntimeError) as error:  # OpenVINO raises the latter
        return first_line(error)
    finally:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)


def tidy(folder: Path) -> bool:
    """Whether an interruption left something half-filled behind, which goes unless another process may be at it."""
    left = list(folder.parent.glob(f"{folder.name}.*"))
    for old in left:
        with suppress(OSError):  # it was finished meanwhile
            if time.time() - old.stat().st_mtime > ABANDONED:
                shutil.rmtree(old, ignore_errors=True)
    return bool(left)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is never seen half-written."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def check_space(place: Path, need: int) -> None:
    """Refuse to fill a folder that the disk has no room for.

    Args:
        place: the folder.
        need: bytes.

    Raises:
        OSError: there is less space.
    """
    if (free := shutil.disk_usage(place).free) < need:
        raise OSError(f"it needs {need // 2**20:,} MB in `{place.parent}`, where {free // 2**20:,} are free")


def first_line(error: BaseException) -> str:
    """What went wrong, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
