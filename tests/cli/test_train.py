"""`foretoken train acceptance-head`: from prompts to a head that `specdec++` uses."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path

from foretoken.cli.train import acceptance_head
from foretoken.train.acceptance_head import Recipe
from tests.cli.conftest import Run

QUICK = ("--max-new-tokens", "4", "--epochs", "1", "--dtype", "float32")


def test_a_trained_head_is_used_by_the_policy(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "prompts.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"What is {n} plus 4?"}) + "\n" for n in range(30)))
    out = tmp_path / "head"
    card = run("train", "acceptance-head", "--data", str(data), "--out", str(out), "--json", *QUICK).record
    assert card["schema"] == "foretoken.train.acceptance-head/1"
    assert card["data"] == ["prompts.jsonl"]
    written = json.loads((out / "acceptance_head.card.json").read_text())
    assert written["calibration_error"] == card["calibration_error"]
    head = str(out / "acceptance_head.safetensors")
    used = run("generate", "Hi", "--length", "specdec++", "--length.file", head, "--max-new-tokens", "6", "--json")
    assert used.code == 0
    assert used.record["stats"]["num_drafted"] > 0


def test_the_defaults_are_those_of_a_recipe() -> None:
    offered = inspect.signature(acceptance_head).parameters
    for field in dataclasses.fields(Recipe):
        assert field.name not in offered or offered[field.name].default == field.default, field.name


def test_what_cannot_be_trained_is_refused_before_loading(run: Run, no_weights: None, tmp_path: Path) -> None:
    data = tmp_path / "prompts.jsonl"
    data.write_text('{"prompt": "Hi"}\n')
    for extra, message in (((), "too few"), (("--draft", "none"), "belongs to a draft model")):
        result = run("train", "acceptance-head", "--data", str(data), "--out", str(tmp_path / "head"), *extra)
        assert result.code == 2
        assert message in result.err


def test_bad_input_is_refused_before_anything_is_loaded(run: Run, no_weights: None, tmp_path: Path) -> None:
    out = str(tmp_path / "head")
    for data, extra in (("missing.jsonl", ()), ("missing.jsonl", ("--limit", "0")), ("missing.jsonl", ("--mix", "1"))):
        result = run("train", "acceptance-head", "--data", str(tmp_path / data), "--out", out, *extra)
        assert result.code == 2
        assert "error: " in result.err
        assert "hint: " in result.err
