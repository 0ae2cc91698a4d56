"""`foretoken train`: from prompts to something that a length policy uses."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from foretoken.cli.train import acceptance_head, disco
from foretoken.train import acceptance_head as acceptance_head_recipe
from foretoken.train import disco as disco_recipe
from tests.cli.conftest import Run

QUICK = ("--max-new-tokens", "4", "--epochs", "1", "--dtype", "float32")


# What is trained, its file, the policy that uses it, the command, and its recipe.
TRAININGS = [
    ("acceptance-head", "acceptance_head", "specdec++", acceptance_head, acceptance_head_recipe.Recipe),
    ("disco", "disco", "disco", disco, disco_recipe.Recipe),
]


@pytest.mark.parametrize(("command", "file", "policy"), [training[:3] for training in TRAININGS])
def test_what_was_trained_is_used_by_its_policy(run: Run, tmp_path: Path, command: str, file: str, policy: str) -> None:
    data = tmp_path / "prompts.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"What is {n} plus 4?"}) + "\n" for n in range(30)))
    out = tmp_path / "trained"
    card = run("train", command, "--data", str(data), "--out", str(out), "--json", *QUICK).record
    assert card["schema"] == f"foretoken.train.{command}/1"
    assert card["data"] == ["prompts.jsonl"]
    written = json.loads((out / f"{file}.card.json").read_text())
    assert written["calibration_error"] == card["calibration_error"]
    weights = str(out / f"{file}.safetensors")
    used = run("generate", "Hi", "--length", policy, "--length.file", weights, "--max-new-tokens", "6", "--json")
    assert used.code == 0
    assert used.record["stats"]["num_drafted"] > 0


@pytest.mark.parametrize(("command", "recipe"), [training[3:] for training in TRAININGS])
def test_the_defaults_are_those_of_a_recipe(command: Any, recipe: Any) -> None:
    offered = inspect.signature(command).parameters
    named = {"temperatures": "temperature"}
    for field in dataclasses.fields(recipe):
        name = named.get(field.name, field.name)
        if name in offered:
            default = offered[name].default
            assert (tuple(default) if isinstance(default, list) else default) == field.default, name


@pytest.mark.parametrize("command", [training[0] for training in TRAININGS])
def test_what_cannot_be_trained_is_refused_before_loading(
    run: Run, no_weights: None, tmp_path: Path, command: str
) -> None:
    data = tmp_path / "prompts.jsonl"
    data.write_text('{"prompt": "Hi"}\n')
    for extra, message in (((), "too few"), (("--draft", "none"), "belongs to a draft model")):
        result = run("train", command, "--data", str(data), "--out", str(tmp_path / "trained"), *extra)
        assert result.code == 2
        assert message in result.err


def test_bad_input_is_refused_before_anything_is_loaded(run: Run, no_weights: None, tmp_path: Path) -> None:
    out = str(tmp_path / "head")
    for data, extra in (("missing.jsonl", ()), ("missing.jsonl", ("--limit", "0")), ("missing.jsonl", ("--mix", "1"))):
        result = run("train", "acceptance-head", "--data", str(tmp_path / data), "--out", out, *extra)
        assert result.code == 2
        assert "error: " in result.err
        assert "hint: " in result.err
