"""`foretoken bench`, as a command: streams, JSON, exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

import foretoken
from tests.cli.conftest import Run

SMALL = ("--max-new-tokens", "8", "--dtype", "float32", "--methods", "fixed:2,confidence")
ROWS = '{"prompt": "Name three colours."}\n{"prompt": "Can a fish fly?"}\n{"prompt": "Hi"}\n'


@pytest.mark.parametrize("drawn", [(), ("--temperature", "1", "--accept", "coupled")])
def test_json_holds_every_method_and_sample(run: Run, drawn: tuple[str, ...]) -> None:
    """Where drafter and target draw by the same numbers, all methods say the same."""
    result = run("bench", *SMALL, *drawn, "--prompts", "-", "--limit", "2", "--json", "--check", stdin=ROWS)
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


def test_a_simulation_judges_one_token_after_the_other(run: Run) -> None:
    """What a chain would have met after its first refused token is not on record."""
    few = ("bench", "--limit", "1", "--max-new-tokens", "3", "--seed", "1", "--json", "--methods", "fixed:1")
    few = (*few, "--no-baseline", "--simulate", "--draft", "builtin:pair", "--draft-costs", "here")
    warm = run(*few, "--temperature", "1")
    assert warm.record["config"]["accept"]["name"] == "rejection"
    assert warm.err == "`block` gives way to `rejection`: `--simulate` judges one token after the other\n"
    assert warm.record["simulation"][0]["measured"]
    cold = run(*few)
    assert (cold.record["config"]["accept"]["name"], cold.err) == ("block", "")


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


def test_every_grown_target_has_its_own_record_and_files(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    few = ("bench", *SMALL, "--no-baseline", "--limit", "1", "--grow-target", "1x,4x", "--backend", "torch", "--check")
    files = ("--csv", str(tmp_path / "table.csv"), "--answers", str(tmp_path / "answers"))
    result = run(*few, *files, "--json")
    assert (result.code, result.err) == (0, "")
    small, large = result.records
    assert [one["config"]["target"] for one in result.records] == ["builtin:pair 1x", "builtin:pair 4x"]
    assert {one["config"]["draft_model"] for one in result.records} == {"builtin:pair"}
    assert [row["block_efficiency"] for row in small["methods"]] == [
        row["block_efficiency"] for row in large["methods"]
    ]
    assert [s["token_ids"] for s in small["samples"]] == [s["token_ids"] for s in large["samples"]]
    assert (large["growth"]["factor"], large["growth"]["width"], large["growth"]["depth"]) == (4, 2, 1)
    assert large["growth"]["num_parameters"] > 3.5 * small["growth"]["num_parameters"]
    assert (Path(large["growth"]["folder"]) / "tokenizer.json").is_file()
    for growth in ("1x", "4x"):
        lines = (tmp_path / f"table-{growth}.csv").read_text().splitlines()
        assert all(line.startswith(f"builtin:pair {growth},") for line in lines[1:])
        assert (tmp_path / f"answers-{growth}" / "fixed-2.jsonl").is_file()
    shown = run(*few[:-3], "--csv", str(tmp_path / "table.csv"))
    assert shown.out.index("builtin:pair 1x: 1 prompts") < shown.out.index("builtin:pair 4x: 1 prompts")
