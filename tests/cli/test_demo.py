"""`foretoken demo`: two answers per prompt, and what happens when they differ."""

from __future__ import annotations

import re

import pytest

from tests.cli.conftest import Run

SHORT = ("--max-new-tokens", "6", "--repeat", "1")
ALWAYS = ("--length", "fixed:2")  # drafts for every prompt, whatever the clock says


@pytest.fixture(autouse=True)
def two_prompts(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    path = f"{tmp_path}/prompts.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"id": "colours", "prompt": "Name three colours."}\n{"id": "fish", "prompt": "Can a fish fly?"}\n')
    monkeypatch.setattr("foretoken.cli.demo.PROMPTS", path)


def test_the_texts_are_the_same(run: Run) -> None:
    result = run("demo", *SHORT)
    assert (result.code, result.err) == (0, "")
    assert max(map(len, result.out.splitlines())) <= 80
    for words in ("> Name three colours.", "> Can a fish fly?", "target  builtin:pair", "float32 on cpu"):
        assert words in result.out
    assert re.search(r"colours +\S+ +\S+ +\S+ +\S+ +the same", result.out)
    assert re.search(r"all .* 2 of 2 the same", result.out)


def test_json_holds_both_answers_and_every_time(run: Run) -> None:
    result = run("demo", "--json", "--max-new-tokens", "6", "--repeat", "2")
    record = result.record
    assert (result.code, result.err, record["schema"]) == (0, "", "foretoken.demo/1")
    assert (record["identical"], record["lossless"], record["seed"]) == (True, True, 0)
    assert [one["id"] for one in record["prompts"]] == ["colours", "fish"]
    for one in record["prompts"]:
        assert (one["identical"], one["difference"]) == (True, None)
        for side in ("plain", "speculative"):
            assert one[side]["stats"]["num_tokens"] == len(one["token_ids"])
            assert len(one[side]["seconds"]) == 2
        assert one["plain"]["stats"]["num_draft_forwards"] == 0
    assert record["ratio"] == pytest.approx(
        record["speculative"]["tokens_per_s"] / record["plain"]["tokens_per_s"], rel=1e-6
    )
    assert {"config", "hardware"} <= set(record)


def test_a_difference_that_must_not_be_is_an_error(run: Run, stand_ins: None) -> None:
    result = run("demo", *SHORT, *ALWAYS, "--json", "--accept", "liar")
    assert (result.code, result.record["identical"]) == (3, False)
    assert result.err.startswith("error: the texts differ")
    assert "\n\nhint: please report it" in result.err
    differing = [one for one in result.record["prompts"] if not one["identical"]]
    assert differing
    for one in differing:
        difference = one["difference"]
        assert difference["plain"] != difference["speculative"] == one["token_ids"][difference["index"]]
        assert difference["top2_logit_gap"] > 0
    seen = run("demo", *SHORT, *ALWAYS, "--accept", "liar")
    assert seen.code == 3
    assert re.search(r"differs at \d+", seen.out)
    assert re.search(r"\nfish: where the texts part, the target's two best logits are \S+ apart\n", seen.out)
    assert max(map(len, seen.out.splitlines())) <= 80


def test_a_lossy_rule_may_differ(run: Run, stand_ins: None) -> None:
    result = run("demo", *SHORT, *ALWAYS, "--json", "--accept", "lossy")
    assert (result.code, result.record["identical"], result.record["lossless"]) == (0, False, False)
    assert result.err.startswith("warning: rule `lossy` is lossy")


def test_half_precision_may_differ(run: Run, stand_ins: None) -> None:
    half = ("--max-new-tokens", "3", "--repeat", "1", "--json", "--dtype", "bfloat16")
    result = run("demo", *half, *ALWAYS, "--accept", "liar")
    assert (result.code, result.record["identical"], result.record["config"]["dtype"]) == (0, False, "bfloat16")
