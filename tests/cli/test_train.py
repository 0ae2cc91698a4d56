"""`foretoken train`: from prompts to something that a length policy uses."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from foretoken.cli.hub import HubDataset
from foretoken.cli.sources import open_sources
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


def rows(path: Path) -> str:
    """A file of questions with answers."""
    lines = [{"question": f"What is {n} plus 4?", "answer": f"{n} plus 4 is {n + 4}."} for n in range(80)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_a_pair_then_a_better_draft_for_it(run: Run, tmp_path: Path) -> None:
    data, evaluation = rows(tmp_path / "rows.jsonl"), tmp_path / "eval.jsonl"
    evaluation.write_text('{"turns": ["Name a fish.", "What is 7 plus 4?"]}\n')
    given = ("--data", data, "--licence", "rows.jsonl=CC0-1.0", "--exclude", str(evaluation))
    pair = tmp_path / "pair"
    card = run("train", "pair", *given, "--budget", "20000", "--out", str(pair), "--json").record
    assert card["schema"] == "foretoken.train.pair/1"
    (source,) = card["data"]["sources"]
    assert (source["name"], source["licence"], source["rows"], source["excluded"]) == ("rows.jsonl", "CC0-1.0", 80, 1)
    assert card["data"]["overlap"]["num_evaluation_prompts"] > 2  # the built-in prompts as well
    models = ("--target", str(pair / "target"), "--draft", str(pair / "draft"))
    assert run("generate", "Hi", *models, "--max-new-tokens", "4", "--json").code == 0
    shown = run("train", "pair", *given, "--budget", "20000", "--out", str(pair))  # done already
    assert "validation loss" in shown.out
    assert "1 texts left out for holding one of" in shown.out

    out, quick = tmp_path / "draft", ("--budget", "300", "--max-new-tokens", "6", "--divergence", "tvd")
    card = run("train", "draft", *given, *models, *quick, "--out", str(out), "--json").record
    assert card["schema"] == "foretoken.train.draft/1"
    assert [row["temperature"] for row in card["acceptance"]] == [0.0, 1.0]
    shown = run("train", "draft", *given, *models, *quick, "--out", str(out))
    assert "acceptance before" in shown.out
    assert f"held-out loss {card['held_out_loss']['before']:.3f} before" in shown.out
    used = run("generate", "Hi", *models[:2], "--draft", str(out), "--max-new-tokens", "4", "--json")
    assert used.code == 0


def test_bad_models_to_train_are_refused_before_anything_is_loaded(run: Run, no_weights: None, tmp_path: Path) -> None:
    data, out = rows(tmp_path / "rows.jsonl"), str(tmp_path / "out")
    few = tmp_path / "few.jsonl"
    few.write_text('{"prompt": "Hi"}\n')
    for command, extra, message in (
        ("pair", ("--data", data, "--budget", "3M"), "option `--budget` cannot be '3M'"),
        ("pair", ("--data", str(tmp_path / "none.jsonl")), "there is no file"),
        ("pair", ("--data", str(few)), "nothing to learn from"),
        ("pair", ("--data", data, "--licence", "other.jsonl=MIT"), "not among the data"),
        ("pair", ("--data", data, "--licence", "MIT"), "option `--licence` cannot be 'MIT'"),
        ("pair", ("--data", data, "--exclude", "none.jsonl"), "there is no file"),
        ("draft", ("--data", data, "--method", "magic"), "unknown method `magic`"),
        ("draft", ("--data", data, "--divergence", "kl"), "unknown divergence `kl`"),
        ("draft", ("--data", data, "--on-policy", "2"), "on-policy share cannot be 2.0"),
        ("draft", ("--data", data, "--interpolate", "1.1"), "option `--interpolate` cannot be 1.1"),
        ("draft", ("--data", data, "--interpolate", "0.5", "--method", "scratch"), "needs a draft to start from"),
        ("draft", ("--data", data, "--draft", "none"), "distilling starts from a draft model"),
        ("draft", ("--data", str(few)), "too few to train on"),
    ):
        result = run("train", command, "--out", out, *extra)
        assert result.code == 2, message
        assert message in result.err
        assert "hint: " in result.err


def test_progress_has_throughput_and_time_left_and_warnings_are_shown(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORETOKEN_NO_PROGRESS", raising=False)
    given = ("--data", rows(tmp_path / "rows.jsonl"), "--budget", "20000", "--out", str(tmp_path / "pair"))
    seen = run("train", "pair", *given, terminal="err")
    for words in ("training the target", "of 19,968", "/s", "validation loss", "0:00:0"):
        assert words in seen.err
    assert "training the" not in seen.out
    (newest,) = (tmp_path / "pair" / "work" / "draft").glob("round-0.*.pt")
    newest.write_bytes(b"broken")
    again = run("train", "pair", *given)
    assert f"warning: checkpoint `{newest}` is corrupt" in " ".join(again.err.split())
    assert again.out == seen.out


def test_data_sets_of_the_hub_give_their_training_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def here(dataset: HubDataset, limit: int | None) -> list[dict[str, Any]]:
        asked.append((dataset.name, dataset.split))
        return [{"text": "Hello."}]

    monkeypatch.setattr(HubDataset, "rows", here)
    sources = open_sources(["owner/set", "owner/other:test"], ["owner/set=MIT"])
    assert asked == [("owner/set", "train"), ("owner/other", "test")]
    stated = [(source.name, source.licence) for source in sources]
    assert stated == [("owner/set", "MIT"), ("owner/other:test", "not stated")]
    assert sources[0].sha256 == sources[1].sha256
