"""`foretoken train blockwise`, `falcon` and `pass`: from prompts to a drafter that a command line uses."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from foretoken.cli.train_inside import InsideOptions, blockwise, falcon, lookahead
from foretoken.models.source import BUILTIN
from foretoken.train import blockwise as blockwise_recipe
from foretoken.train import falcon as falcon_recipe
from foretoken.train import lookahead as lookahead_recipe
from tests.cli.conftest import Run

QUICK = ("--texts", "20", "--max-new-tokens", "8", "--rounds", "1", "--steps", "1", "--dtype", "float32")


@pytest.mark.parametrize(
    ("name", "extra"),
    [("blockwise", ("--heads", "2", "--width", "8")), ("falcon", ("--width", "8")), ("pass", ("--ahead", "2"))],
)
def test_what_was_trained_drafts(run: Run, tmp_path: Path, name: str, extra: tuple[str, ...]) -> None:
    data, out = tmp_path / "prompts.jsonl", tmp_path / "trained.safetensors"
    data.write_text("".join(json.dumps({"prompt": f"Tell me a long story about {n} dogs."}) + "\n" for n in range(24)))
    card = run("train", name, "--data", str(data), "--out", str(out), "--json", *QUICK, *extra).record
    assert card["schema"] == f"foretoken.train.{name}/1"
    assert card["data"]["sources"][0]["name"] == "prompts.jsonl"
    assert json.loads((tmp_path / "trained.card.json").read_text())["num_texts"] == 20
    drafter = ("--draft", f"{name}:{out}", "--length", "fixed:2", "--dtype", "float32")
    asked = ("generate", "Name a colour.", "--max-new-tokens", "12", "--json")
    used, plain = run(*asked, *drafter), run(*asked, "--draft", "none", "--dtype", "float32")
    assert used.code == plain.code == 0
    assert used.record["stats"]["num_drafted"] > 0
    assert used.record["text"] == plain.record["text"]

    other = run("generate", "Hi", "--target", str(Path(str(BUILTIN)) / "pair" / "draft"), "--draft", f"{name}:{out}")
    assert other.code == 2
    assert "was trained for another target model" in other.err


@pytest.mark.parametrize(
    ("command", "recipe"),
    [(blockwise, blockwise_recipe.Recipe), (falcon, falcon_recipe.Recipe), (lookahead, lookahead_recipe.Recipe)],
)
def test_the_defaults_are_those_of_a_recipe(command: Any, recipe: Any) -> None:
    offered = inspect.signature(command).parameters
    for field in dataclasses.fields(recipe):
        if field.name in offered:
            assert offered[field.name].default == field.default, field.name
    assert InsideOptions(data=[], out="").recipe().items() <= dataclasses.asdict(recipe()).items()
