"""Texts and evaluation prompts for training: files, or data sets of the hub, each with its licence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from foretoken.cli.hub import HubDataset
from foretoken.errors import ConfigError

if TYPE_CHECKING:
    from foretoken.train.texts import Source


def open_sources(data: Sequence[str], licences: Sequence[str] = ()) -> list[Source]:
    """Read what `--data` names.

    Args:
        data: .jsonl or .jsonl.gz files, or data sets of the hub, of which the training split is the default.
        licences: `NAME=LICENCE`, NAME being a file's or data set's name.

    Raises:
        RequestError: something cannot be read.
        ConfigError: a licence is for something that is not there.
    """
    from foretoken.train.texts import UNSTATED, Source

    stated = dict(_licence(entry) for entry in licences)
    names = {Path(name).name if HubDataset.parse(name) is None else name for name in data}
    if unknown := sorted(stated.keys() - names):
        raise ConfigError(
            f"option `--licence` names `{unknown[0]}`, which is not among the data",
            hint=f"write one of {sorted(names)}",
        )
    found = []
    for name in data:
        if dataset := HubDataset.parse(name):
            rows = (dataset if dataset.split else replace(dataset, split="train")).rows(None)
            found.append(Source.of_rows(name, rows, stated.get(name, UNSTATED)))
        else:
            found.append(Source.of_file(Path(name), stated.get(Path(name).name, UNSTATED)))
    return found


def evaluation_prompts(files: Sequence[str]) -> list[str]:
    """Every question of the prompts that `foretoken bench` has built in, and of the files given.

    Raises:
        RequestError: a file cannot be read, or a row asks nothing.
    """
    from foretoken.errors import RequestError
    from foretoken.train.texts import HINT, prompts_of

    found = []
    built_in = Path(__file__).parent.parent / "data" / "prompts" / "demo.jsonl"
    for source in open_sources([str(built_in), *files]):
        for where, row in source.rows:
            try:
                found += prompts_of(row)
            except LookupError as error:
                raise RequestError(f"{where}: no prompt ({error})", hint=HINT) from error
    return found


def _licence(entry: str) -> tuple[str, str]:
    name, equals, licence = entry.rpartition("=")
    if not equals or not name or not licence:
        raise ConfigError(
            f"option `--licence` cannot be {entry!r}", hint="write `NAME=LICENCE`, `rows.jsonl=MIT` for one"
        )
    return name, licence
