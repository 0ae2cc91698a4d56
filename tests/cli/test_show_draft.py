"""`--show-draft`: marks that can be read without colour."""

from __future__ import annotations

import re

import pytest

from tests.cli.conftest import QUESTION, Run

OPTIONS = ("--max-new-tokens", "40", "--dtype", "float32", "--length", "confidence:0.4", "--show-draft")
ARGS = ("generate", QUESTION, *OPTIONS)
LEGEND = "[drafted and accepted]  ~recovered after a wrong guess  bonus otherwise\n"
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def unmarked(text: str) -> str:
    return re.sub(r"[\[\]~]", "", text)


def test_the_marked_text_goes_to_stderr_and_the_answer_stays_clean(run: Run) -> None:
    result = run(*ARGS)
    assert "[" not in result.out
    marked, blank, legend = result.err.rpartition("\n\n")
    assert (blank, legend) == ("\n\n", LEGEND)
    assert marked.startswith("[def factorial")
    assert "~n [* factorial(n - 1)]" in marked
    assert unmarked(marked).strip() == result.out.strip()


def test_on_one_terminal_the_marked_text_stands_in_for_the_answer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORETOKEN_NO_PROGRESS", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = run(*ARGS, terminal="out err")
    assert coloured.out == ""
    assert "\x1b[32m" in coloured.err
    monkeypatch.setenv("NO_COLOR", "1")
    plain = run(*ARGS, terminal="out err")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", plain.err)
    assert ESCAPE.sub("", plain.err) == ESCAPE.sub("", coloured.err) == run(*ARGS).err


def test_with_json_the_marks_still_go_to_stderr(run: Run) -> None:
    result = run(*ARGS, "--json")
    assert result.err == run(*ARGS).err
    assert result.record["text"] == unmarked(result.err.removesuffix(LEGEND)).rstrip("\n")


def test_without_a_draft_nothing_is_marked(run: Run) -> None:
    result = run(*ARGS, "--draft", "none")
    assert result.err == f"{result.out}\n{LEGEND}"
