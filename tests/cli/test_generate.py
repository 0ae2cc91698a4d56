"""`foretoken generate`: what reaches which stream, and what the JSON holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import foretoken
from foretoken.cli.report import print_stats
from foretoken.metrics import Stats
from foretoken.request import Sampling
from foretoken.types import Counts
from tests.cli.conftest import QUESTION, Run

SHORT = ("--max-new-tokens", "12", "--dtype", "float32")
KEYS = "schema version prompt text token_ids finish_reason stats lossless seed config hardware costs"
STATS = (
    "num_tokens num_target_forwards num_draft_forwards num_drafted num_accepted num_discarded block_efficiency "
    "acceptance_rate verification_rate discard_rate seconds tokens_per_s"
)


@pytest.fixture
def file(tmp_path: Path) -> str:
    rows = [{"id": "one", "prompt": "Name three colours."}, {"turns": [QUESTION, "And then?"]}, {"prompt": "Hi"}]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n\n".join(json.dumps(row) for row in rows) + "\n")
    return str(path)


def test_stdout_carries_the_answer_alone(run: Run) -> None:
    result = run("generate", QUESTION, *SHORT)
    text = run("generate", QUESTION, *SHORT, "--json").record["text"]
    assert (result.code, result.out, result.err) == (0, text + "\n", "")
    assert run("generate", QUESTION, *SHORT, "--no-stream").out == text + "\n"


def test_counts_go_to_stderr(run: Run) -> None:
    result = run("generate", QUESTION, *SHORT, "--stats", "--seed", "7")
    assert result.out == run("generate", QUESTION, *SHORT).out
    for words in ("tokens", "target forwards", "block efficiency", "accepted", "discarded", "per second"):
        assert words in result.err
    assert result.err.splitlines()[-1].split() == ["seed", "7"]
    plain = run("generate", QUESTION, *SHORT, "--stats", "--draft", "none").err
    assert "drafted" not in plain
    assert "block efficiency 1.00" in plain


def test_counts_and_costs_fit_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    counts = Counts(2048, 1024, 5120, 5120, 4096, 1024, 5120)
    costs = {name: dict.fromkeys(("1", "2", "4", "8"), 0.1234) for name in ("draft_s", "verify_s")}
    print_stats([Stats(counts, 612.34)], 2**63 - 1, costs)
    lines = capsys.readouterr().err.splitlines()[1:]
    assert len(lines) == 8, "a line was broken"
    assert lines[-2].split()[:4] == ["verified", "tokens,", "ms", "123.4"]
    assert all(len(line.rstrip()) <= 80 for line in lines)


def test_json_holds_all_it_takes_to_get_the_same_again(run: Run) -> None:
    result = run("generate", QUESTION, *SHORT, "--json", "--temperature", "1", "--length", "fixed:2")
    record = result.record
    assert (result.code, result.err, set(record)) == (0, "", set(KEYS.split()))
    assert record["schema"] == "foretoken.generate/1"
    assert record["version"] == foretoken.__version__
    assert (record["prompt"], record["finish_reason"], record["lossless"]) == (QUESTION, "length", True)
    assert set(STATS.split()) <= set(record["stats"])
    assert record["stats"]["num_tokens"] == len(record["token_ids"]) == 12
    config = record["config"]
    assert config["length"] == {"name": "fixed", "options": {"k": 2}}
    assert (config["target"], config["draft_model"], config["draft"]["name"]) == (
        "builtin:pair",
        "builtin:pair",
        "model",
    )
    assert (config["dtype"], config["device"], config["max_new_tokens"]) == ("float32", "cpu", 12)
    assert config["sampling"]["temperature"] == 1.0
    assert {"cpu", "cores", "threads", "gpu", "torch", "transformers", "openvino", "python"} == set(record["hardware"])
    assert config["backend"] in ("torch", "openvino")
    again = run(
        *("generate", QUESTION, *SHORT, "--json", "--temperature", "1", "--length.k", "2", "--length", "fixed"),
        *("--seed", str(record["seed"])),
    ).record
    assert again["token_ids"] == record["token_ids"]


def test_without_a_draft_the_tokens_are_the_same(run: Run) -> None:
    drafted, plain = (run("generate", QUESTION, *SHORT, "--json", *more).record for more in ((), ("--draft", "none")))
    assert drafted["token_ids"] == plain["token_ids"]
    assert drafted["stats"]["num_target_forwards"] < plain["stats"]["num_target_forwards"] == 12
    assert plain["config"]["draft_model"] is None


def test_what_is_piped_in_goes_before_the_prompt(run: Run) -> None:
    def prompt(*words: str, stdin: str) -> str:
        text: str = run("generate", "--json", "--max-new-tokens", "1", *words, stdin=stdin).record["prompt"]
        return text

    assert prompt("How many?", stdin="Two dogs.\n") == "Two dogs.\nHow many?"
    assert prompt("-", stdin="Two dogs.\n") == prompt(stdin="Two dogs.") == "Two dogs."
    assert prompt("How many?", stdin="") == "How many?"
    assert prompt("--", "-5 + 3?", stdin="") == "-5 + 3?"


def test_nothing_is_read_from_a_keyboard(run: Run) -> None:
    result = run("generate", "How many?", "--json", "--max-new-tokens", "1", stdin="typed ahead", terminal="in")
    assert result.record["prompt"] == "How many?"


def test_a_file_of_prompts_is_answered_row_by_row(run: Run, file: str) -> None:
    result = run("generate", "--prompts", file, *SHORT, "--json")
    assert [record.get("id") for record in result.records] == ["one", None, None]
    assert [record["prompt"] for record in result.records] == ["Name three colours.", QUESTION, "Hi"]
    assert result.records[1]["token_ids"] == run("generate", QUESTION, *SHORT, "--json").record["token_ids"]
    piped = run("generate", "--prompts", "-", *SHORT, "--json", "--limit", "1", stdin=Path(file).read_text())
    assert piped.record["token_ids"] == result.records[0]["token_ids"]


def test_answers_to_a_file_stand_apart_and_their_titles_go_to_stderr(run: Run, file: str) -> None:
    texts = [record["text"] for record in run("generate", "--prompts", file, *SHORT, "--json", "--limit", "2").records]
    result = run("generate", "--prompts", file, *SHORT, "--limit", "2")
    assert result.out == f"{texts[0]}\n\n{texts[1]}\n"
    assert result.err == f"1/2  Name three colours.\n2/2  {QUESTION}\n"
    assert run("generate", "--prompts", file, *SHORT, "--limit", "2", "--quiet").err == ""


def test_logprobs_come_with_their_alternatives(run: Run) -> None:
    record = run("generate", QUESTION, *SHORT, "--json", "--logprobs", "2").record
    assert [entry["token_id"] for entry in record["logprobs"]] == record["token_ids"]
    for entry in record["logprobs"]:
        assert len(entry["top"]) == 2
        assert {"token_id": entry["token_id"], "text": entry["text"], "logprob": entry["logprob"]} == entry["top"][0]


def test_options_reach_the_request(run: Run) -> None:
    record = run(
        *("generate", QUESTION, "--json", "--raw", "--ignore-eos", "--stop", "zzz", "--logit-bias", "591=-100"),
        *("--top-k", "5", "--top-p", "0.9", "--min-p", "0.1", "--max-new-tokens", "2", "--repetition-penalty", "1.1"),
    ).record
    config = record["config"]
    assert (config["stop"], config["stop_token_ids"]) == (["zzz"], [])
    sampling = Sampling(logit_bias={591: -100.0}, top_k=5, top_p=0.9, min_p=0.1, repetition_penalty=1.1)
    for name, value in config["sampling"].items():
        expected = {"591": -100.0} if name == "logit_bias" else getattr(sampling, name)
        assert value == expected, name


def test_a_lossy_rule_is_announced_and_recorded(run: Run, stand_ins: None) -> None:
    result = run("generate", QUESTION, *SHORT, "--json", "--accept", "lossy")
    assert result.record["lossless"] is False
    assert result.err.startswith("warning: rule `lossy` is lossy")
    assert run("generate", QUESTION, *SHORT, "--accept", "lossy", "--quiet").err == ""


def test_progress_is_for_those_who_watch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    seen = run("generate", QUESTION, *SHORT, "--json", terminal="err")
    assert "loading builtin:pair" in seen.err
    assert "tokens/step" in seen.err
    assert seen.record["stats"]["num_tokens"] == 12
    assert run("generate", QUESTION, *SHORT, "--json", "--quiet", terminal="err").err == ""
    monkeypatch.setenv("FORETOKEN_NO_PROGRESS", "1")
    assert run("generate", QUESTION, *SHORT, "--json", terminal="err").err == ""
