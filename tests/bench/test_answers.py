"""Answers as the scripts of Spec-Bench read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from foretoken.bench.answers import emitted, file_name, write_answers
from foretoken.bench.run import Sample
from foretoken.types import Counts

COUNTS = Counts(num_tokens=6, num_target_forwards=3, num_drafted=6, num_tested=5, num_accepted=4, num_cut=1)
STEPS = [(2, 1), (2, 1), (2, 2)]


def sample(method: str, prompt: int, repeat: int) -> Sample:
    return Sample(method, prompt, repeat, 0.5, 1.5, COUNTS, STEPS, [prompt, repeat])


def test_one_file_per_method_one_line_per_prompt_one_choice_per_round(tmp_path: Path) -> None:
    samples = [sample(method, p, r) for method in ("plain", "fixed:2") for p in (0, 1) for r in (0, 1)]
    questions: list[dict[str, Any]] = [{"id": 81, "category": "writing"}, {"id": None, "category": None}]
    folder = tmp_path / "answers"
    write_answers(folder, samples, questions, lambda ids: f" {ids}")
    assert sorted(path.name for path in folder.iterdir()) == ["fixed-2.jsonl", "plain.jsonl"]
    first, second = (json.loads(line) for line in (folder / "fixed-2.jsonl").read_text().splitlines())
    assert (first["question_id"], first["category"], first["model_id"]) == (81, "writing", "fixed:2")
    assert (second["question_id"], second["category"]) == (1, None)
    assert {"answer_id", "tstamp"} < set(first)
    assert first["choices"][1] == {
        "index": 1,
        "turns": ["[0, 1]"],
        "decoding_steps": [3],
        "new_tokens": [6],
        "wall_time": [2.0],
        "accept_lengths": [2, 2, 2],
    }


def test_accept_lengths_sum_to_the_emitted_tokens() -> None:
    assert sum(emitted(sample("x", 0, 0))) == COUNTS.num_tokens


def test_a_name_of_a_file() -> None:
    assert file_name("specdec++:0.5") == "specdec++-0.5"
    assert file_name("a/b:c") == "a-b-c"
