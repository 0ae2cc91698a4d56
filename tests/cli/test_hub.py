"""Prompts from datasets of the hub, with a stand-in for the library that reads them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from foretoken.cli.hub import HubDataset
from foretoken.cli.prompts import Source, from_file
from foretoken.errors import RequestError

SETS: dict[tuple[str, str | None], dict[str, list[dict[str, Any]]]] = {
    ("own/set", None): {
        "train": [{"question": "first?"}],
        "test": [{"question": "a?", "hint": "use b"}, {"question": "c?", "hint": "use d"}],
    },
    ("own/chat", "main"): {"dev": [{"turns": ["Hi", "And?"], "question_id": 7, "category": "writing"}]},
    ("own/tasks", None): {
        "train": [{"instruction": "Add.", "input": "1 and 2"}, {"instruction": "Sing.", "input": ""}]
    },
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def splits(name: str, config: str | None) -> list[str]:
        if name not in {known for known, _ in SETS}:
            raise ConnectionError(f"Couldn't reach '{name}' on the Hub")
        if (name, config) not in SETS:
            raise ValueError("Config name is missing.\nPlease pick one: ['main']")
        return list(SETS[name, config])

    def load(name: str, config: str | None, split: str) -> list[dict[str, Any]]:
        part, _, count = split.partition("[:")
        return SETS[name, config][part][: int(count[:-1]) if count else None]

    library = SimpleNamespace(get_dataset_split_names=splits, load_dataset=load)
    monkeypatch.setitem(sys.modules, "datasets", library)


@pytest.mark.parametrize(
    ("spec", "limit", "sources"),
    [
        ("own/set", None, [Source("a?"), Source("c?")]),
        ("own/set:test", 1, [Source("a?")]),
        ("own/set:train", None, [Source("first?")]),
        ("own/set:test:hint", None, [Source("use b"), Source("use d")]),
        ("own/chat/main", None, [Source("Hi", 7, "writing")]),
        ("own/tasks", None, [Source("Add.\n1 and 2"), Source("Sing.")]),
    ],
)
def test_rows_of_a_dataset(hub: None, spec: str, limit: int | None, sources: list[Source]) -> None:
    assert from_file(spec, limit) == sources


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("own/none", "cannot read the dataset `own/none`: Couldn't reach"),
        ("own/chat", "cannot read the dataset `own/chat`: Config name is missing."),
        ("own/set:test:answer", "`own/set:test:answer` row 1 holds no prompt"),
    ],
)
def test_what_cannot_be_read(hub: None, spec: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as error:
        from_file(spec, None)
    assert error.value.hint


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(RequestError, match="needs the library `datasets`") as error:
        from_file("own/set", None)
    assert "foretoken[data]" in str(error.value.hint)


def test_files_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "set").write_text('{"prompt": "Hi", "id": 3}\n')
    assert from_file("own/set", None) == [Source("Hi", 3)]
    assert HubDataset.parse("own/misspelt") is None
    assert HubDataset.parse("own/set:test") == HubDataset("own/set", split="test")
    for file in ("-", "rows.jsonl", "a/rows.jsonl", "/no/where/rows.txt"):
        assert HubDataset.parse(file) is None
