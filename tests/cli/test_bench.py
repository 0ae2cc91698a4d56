"""`foretoken bench`, as a command: streams, JSON, exit codes."""

from __future__ import annotations

import pytest

import foretoken
from tests.cli.conftest import Run

SMALL = ("--max-new-tokens", "8", "--dtype", "float32", "--methods", "fixed:2,confidence")
ROWS = '{"prompt": "Name three colours."}\n{"prompt": "Can a fish fly?"}\n{"prompt": "Hi"}\n'


def test_json_holds_every_method_and_sample(run: Run) -> None:
    result = run("bench", *SMALL, "--prompts", "-", "--limit", "2", "--json", "--check", stdin=ROWS)
    record = result.record
    assert (result.code, result.err) == (0, "")
    assert (record["schema"], record["version"]) == ("foretoken.bench/1", foretoken.__version__)
    assert [row["method"] for row in record["methods"]] == ["plain", "fixed:2", "confidence"]
    assert record["methods"][0]["speed_up"] == pytest.approx(1)
    assert [row["num_differing"] for row in record["methods"]] == [0, 0, 0]
    assert len(record["samples"]) == 3 * 2
    assert {"config", "hardware", "lossless"} <= set(record)


def test_the_table_goes_to_stdout(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = run("bench", *SMALL, "--limit", "1")
    assert (result.code, result.err) == (0, "")
    for words in ("plain", "fixed:2", "confidence", "over", "discard"):
        assert words in result.out


def test_check_finds_a_text_that_differs(run: Run, stand_ins: None) -> None:
    result = run("bench", *SMALL, "--limit", "2", "--accept", "liar", "--check", "--json")
    assert result.code == 3
    assert any(row["num_differing"] for row in result.record["methods"])
    assert result.err.startswith("error: texts differ from plain decoding: fixed:2")
    assert "\n\nhint: " in result.err


def test_a_baseline_is_added_and_the_oracle_left_out_where_chance_decides(run: Run) -> None:
    few = ("bench", "--limit", "1", "--max-new-tokens", "3", "--seed", "1", "--json", "--methods", "confidence,oracle")
    result = run(*few, "--temperature", "1")
    names = [row["method"] for row in result.record["methods"]]
    assert names == ["plain", *(f"fixed:{k}" for k in range(1, 9)), "confidence"]
    assert result.record["best_fixed"] in names
    added, left_out = result.err.splitlines()
    assert added.startswith("added the baseline fixed:1 to fixed:8")
    assert left_out.startswith("the oracle is left out")
    bare = run(*few, "--no-baseline")
    assert [row["method"] for row in bare.record["methods"]] == ["plain", "confidence", "oracle"]
    assert (bare.record["best_fixed"], bare.err) == (None, "")
    assert run(*few, "--temperature", "1", "--quiet").err == ""


def test_in_half_precision_the_check_is_made_in_float32(run: Run, stand_ins: None) -> None:
    half = ("bench", *SMALL, "--dtype", "bfloat16", "--limit", "1", "--check", "--json", "--quiet")
    good = run(*half)
    assert good.code == 0
    assert good.record["check"] == {
        "dtype": "float32",
        "first_prompt_only": True,
        "max_new_tokens": 8,
        "differing": [],
    }
    bad = run(*half, "--accept", "liar")
    assert bad.code == 3
    assert bad.record["check"]["differing"] == ["fixed:2", "confidence"]
