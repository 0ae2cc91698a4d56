"""Prompts come out of the row formats people have."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from foretoken.errors import RequestError
from foretoken.train.texts import Document, Source, read_texts


def write(path: Path, rows: list[object]) -> Path:
    text = "\n".join(json.dumps(row) for row in rows) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_every_row_format_plain_and_compressed(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a"},
        {"turns": ["b", "c"]},
        {"instruction": "d", "input": "e"},
        {"question": "g"},
        {"text": "f" * 300},
    ]
    expected = ["a", "b", "d\ne", "g", "f" * 200]
    assert read_texts([write(tmp_path / "rows.jsonl", rows)], 9) == expected
    assert read_texts([write(tmp_path / "rows.jsonl.gz", rows)], 9) == expected


def test_each_file_gives_its_share(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", [{"prompt": f"1{i}"} for i in range(9)])
    two = write(tmp_path / "two.jsonl", [{"prompt": f"2{i}"} for i in range(9)])
    assert read_texts([one, two], 4) == ["10", "11", "20", "21"]


def test_bad_files_say_where_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no file") as missing:
        read_texts([tmp_path / "none.jsonl"], 1)
    assert missing.value.hint
    with pytest.raises(RequestError, match="line 2") as broken:
        read_texts([write(tmp_path / "bad.jsonl", [{"prompt": "a"}, {"answer": "b"}])], 5)
    assert broken.value.hint
    with pytest.raises(RequestError, match="nothing to train on"):
        read_texts([write(tmp_path / "empty.jsonl", [])], 5)


def test_documents_are_texts_or_questions_with_answers(tmp_path: Path) -> None:
    rows = [
        {"text": "a"},
        {"instruction": "b", "input": "c", "output": "d"},
        {"instruction": "b", "input": "", "output": "d"},
        {"question": "e", "answer": "f"},
    ]
    expected = [Document(None, "a"), Document("b\nc", "d"), Document("b", "d"), Document("e", "f")]
    plain, packed = (Source.of_file(write(tmp_path / name, rows)) for name in ("rows.jsonl", "rows.jsonl.gz"))
    assert plain.documents() == packed.documents() == Source.of_rows("set", rows).documents() == expected
    assert plain.sha256 != packed.sha256
    assert plain.to_json() == {"name": "rows.jsonl", "licence": "not stated", "sha256": plain.sha256, "rows": 4}
    with pytest.raises(RequestError, match="line 1: nothing to learn from"):
        Source.of_file(write(tmp_path / "bad.jsonl", [{"prompt": "a"}])).documents()
    for content, message in ((b"no json", "is not JSON"), (b"[1]", "is no JSON object"), (b"\xff\xfe", "cannot read")):
        (tmp_path / "bad.jsonl").write_bytes(content)
        with pytest.raises(RequestError, match=message):
            Source.of_file(tmp_path / "bad.jsonl")
