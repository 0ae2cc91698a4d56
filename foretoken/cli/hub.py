"""Prompts from a dataset of the hub: `owner/name[/config][:split][:column]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretoken.errors import RequestError

NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:/([\w.-]+))?(?::([\w.-]+))?(?::([\w.-]+))?")
SPLITS = ("test", "validation", "train")  # the first of these that a dataset has


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A dataset, and what of it to read.

    Attributes:
        name: owner/name.
        config: its configuration, where it has several.
        split: None takes the first of `SPLITS`.
        column: where the prompt is; None takes the first that is known.
    """

    name: str
    config: str | None = None
    split: str | None = None
    column: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubDataset | None:
        """Read `owner/name[/config][:split][:column]`; None for a file, and for what looks like one.

        Example:
            >>> HubDataset.parse("openai/gsm8k/main:test")
            HubDataset(name='openai/gsm8k', config='main', split='test', column=None)
        """
        match, path = NAME.fullmatch(text), Path(text)
        # In a folder that is here, it is a file that was misspelt.
        misspelt = ":" not in text and path.parent.is_dir() and not path.is_dir()
        if match is None or path.is_file() or misspelt or path.suffix in (".json", ".jsonl"):
            return None
        return cls(*match.groups())

    def rows(self, limit: int | None) -> list[dict[str, Any]]:
        """Its rows in order, downloaded on first use.

        Raises:
            RequestError: the library for it is missing, or it cannot be read.
        """
        try:
            from datasets import get_dataset_split_names, load_dataset
        except ImportError as error:
            raise RequestError(
                f"reading `{self.name}` from the hub needs the library `datasets`",
                hint='install it with `pip install "foretoken[data]"`, or give a file of JSON lines',
            ) from error
        try:
            splits = get_dataset_split_names(self.name, self.config)
            split = self.split or next((one for one in SPLITS if one in splits), splits[0])
            found = load_dataset(self.name, self.config, split=split if limit is None else f"{split}[:{limit}]")
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise RequestError(
                f"cannot read the dataset `{self.name}`: {reason}",
                hint="write `owner/name`, `owner/name/config:split` or `owner/name:split:column`",
            ) from error
        return [dict(row) for row in found]
