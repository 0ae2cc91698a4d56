"""Ctrl-C: exit code 130, and what was generated so far is shown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from foretoken.models.source import Checkpoint
from tests.cli.conftest import QUESTION, Run

LONG = ("--max-new-tokens", "40", "--dtype", "float32", "--length", "fixed:2")
CtrlC = Callable[[int], None]


def test_the_text_so_far_is_shown(run: Run, ctrl_c: CtrlC) -> None:
    whole = run("generate", QUESTION, *LONG).out
    ctrl_c(3)
    result = run("generate", QUESTION, *LONG, "--stats")
    assert result.code == 130
    assert 0 < len(result.out) < len(whole)
    assert result.out.endswith("\n")
    assert whole.startswith(result.out[:-1])
    assert "block efficiency" in result.err
    assert result.err.endswith("\ninterrupted\n")
    ctrl_c(3)
    assert run("generate", QUESTION, *LONG, "--quiet").err == ""


def test_the_json_so_far_is_complete(run: Run, ctrl_c: CtrlC) -> None:
    whole = run("generate", QUESTION, *LONG, "--json").record
    ctrl_c(3)
    result = run("generate", QUESTION, *LONG, "--json")
    assert (result.code, result.record["finish_reason"]) == (130, "cancelled")
    count = len(result.record["token_ids"])
    assert 0 < count < 40
    assert result.record["token_ids"] == whole["token_ids"][:count]
    assert set(result.record) == set(whole)
    assert result.err == "interrupted\n"


def test_every_answer_of_a_batch_is_shown(run: Run, ctrl_c: CtrlC) -> None:
    ctrl_c(2)
    rows = f'{{"prompt": "{QUESTION}"}}\n{{"prompt": "Name three colours."}}\n'
    result = run("generate", "--prompts", "-", *LONG, "--json", stdin=rows)
    assert result.code == 130
    assert [record["finish_reason"] for record in result.records] == ["cancelled"] * 2
    assert all(record["token_ids"] for record in result.records)


def test_piped_turns_end_with_the_answer_that_was_cut_off(run: Run, ctrl_c: CtrlC) -> None:
    ctrl_c(2)
    result = run("chat", *LONG, "--json", stdin=f"{QUESTION}\nAnd then?\n")
    assert (result.code, result.record["finish_reason"]) == (130, "cancelled")
    assert result.err == "answer ended early\n"


def test_a_conversation_at_the_keyboard_goes_on(run: Run, ctrl_c: CtrlC, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETOKEN_NO_PROGRESS", "1")
    ctrl_c(2)
    result = run("chat", *LONG, "--json", stdin=f"{QUESTION}\nHi\n", terminal="in")
    assert result.code == 0
    assert [record["finish_reason"] == "cancelled" for record in result.records] == [True, False]


def test_the_demo_concludes_from_what_is_done(run: Run, ctrl_c: CtrlC) -> None:
    demo = ("demo", "--max-new-tokens", "4", "--repeat", "1", "--draft", "none", "--json")
    # Four steps per answer: two answers of warm-up, two for the first prompt, then the third step of the next.
    ctrl_c(19)
    result = run(*demo)
    assert (result.code, len(result.record["prompts"]), result.record["identical"]) == (130, 1, True)
    ctrl_c(1)
    result = run(*demo)
    assert (result.code, result.record["prompts"], result.record["ratio"]) == (130, [], None)


def test_a_comparison_keeps_what_every_method_has_answered(run: Run, ctrl_c: CtrlC) -> None:
    bench = ("bench", "--methods", "plain,fixed:1", "--no-baseline", "--max-new-tokens", "4", "--limit", "3", "--check")
    # Four plain steps and two to four others per prompt: eight at most to warm up, and for each prompt.
    ctrl_c(20)
    result = run(*bench, "--json")
    assert (result.code, result.record["complete"], result.record["check"]) == (130, False, None)
    assert 0 < result.record["num_prompts"] == len(result.record["prompts"]) < 3
    assert len(result.record["samples"]) == 2 * result.record["num_prompts"]
    assert "interrupted: this is of" in result.err
    ctrl_c(1)
    result = run(*bench, "--json")
    assert (result.code, result.out) == (130, "")


def test_loading_says_that_nothing_half_done_stays(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "load", interrupted)
    for words, said in ((), "nothing half-done was kept"), (("--quiet",), ""):
        result = run("generate", QUESTION, *words)
        assert (result.code, result.out) == (130, "")
        assert said in result.err
        assert bool(result.err) == bool(said)


def test_a_real_signal_to_a_real_process() -> None:
    command = [
        str(Path(sys.executable).with_name("foretoken")),
        *("generate", QUESTION, "--max-new-tokens", "1500", "--ignore-eos", "--show-draft"),
    ]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, **streams) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        out, err = first + process.stdout.read(), process.stderr.read()
    assert process.returncode == 130
    assert out.startswith("def")
    assert out.endswith("\n")
    assert err.startswith("[def")
    assert err.endswith("\ninterrupted\n")
    assert "Traceback" not in err
