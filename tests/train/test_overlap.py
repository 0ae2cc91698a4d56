"""A planted evaluation prompt is found, however it is dressed, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foretoken.train.card import FILE, data_card, write_card
from foretoken.train.overlap import EvaluationPrompts, Overlap
from foretoken.train.texts import Document, Source

LONG = "A baker sells 12 rolls in the morning and twice as many at noon. How many rolls does she sell in all?"
MIDDLE = "Name three uses of an old newspaper."  # 7 words
SHORT = "What is rain?"
PROMPTS = EvaluationPrompts([LONG, MIDDLE, SHORT])


@pytest.mark.parametrize(
    ("document", "prompt"),
    [
        (Document(LONG, "36"), LONG),
        (Document(None, f"Chapter 1.\n\n{LONG.upper()}\nNobody knew."), LONG),
        (Document(None, "... sells 12 rolls -- in the morning, and twice as many at noon: how many? ..."), LONG),
        (Document("Please: name three uses of an OLD newspaper!", "None."), MIDDLE),
        (Document("what is rain", "Water."), SHORT),
        (Document(None, "what is rain"), SHORT),
        (Document(None, "She asked: what is rain? He did not know."), None),  # too short to be told from chance
        (Document(None, "A baker sells 12 rolls in the morning and twice as many in June."), None),
        (Document("Name three uses of a new newspaper.", "an old newspaper"), None),
        (Document("", ""), None),
    ],
)
def test_what_overlaps(document: Document, prompt: str | None) -> None:
    assert PROMPTS.find(document) == prompt


def test_what_overlaps_is_left_out_and_counted() -> None:
    documents = [Document(None, "One."), Document(LONG, "36"), Document(None, "Two.")]
    clean, found = PROMPTS.split(documents)
    assert clean == [documents[0], documents[2]]
    assert found == [Overlap(1, LONG)]
    assert EvaluationPrompts([]).split(documents) == (documents, [])


def test_a_card_has_licence_hash_and_overlap_of_every_source(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"text": "One."}) + "\n")
    sources = [Source.of_file(data, "CC0-1.0"), Source.of_rows("owner/set", [{"question": "q", "answer": "a"}])]
    card = {
        "sizes": {"layers": 2},
        "rounds": [{"round": 0, "loss": 1.23456}],
        "data": data_card(sources, [[], [Overlap(0, LONG)]], 7),
    }
    write_card(tmp_path, "A model", "It is small.", card)
    assert json.loads((tmp_path / FILE).read_text()) == card
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("# A model\n\nIt is small.\n")
    for words in ("CC0-1.0", "not stated", *(source.sha256 for source in sources), "7 evaluation prompts; 1 texts"):
        assert words in text
    assert "| 0 | 1.235 |" in text
    assert "clear it before these weights" in text
