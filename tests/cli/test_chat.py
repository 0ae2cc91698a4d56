"""`foretoken chat`: turns from a pipe and from a keyboard."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from foretoken.models.source import BUILTIN
from tests.cli.conftest import Run

SHORT = ("--max-new-tokens", "6", "--dtype", "float32")


def test_piped_turns_keep_their_history(run: Run) -> None:
    result = run("chat", *SHORT, "--json", stdin="Hello!\n\nAnd then?\n")
    first, second = result.records
    assert (result.code, result.err, first["schema"]) == (0, "", "foretoken.chat/1")
    assert first["messages"] == [{"role": "user", "content": "Hello!"}]
    assert second["messages"] == [
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": first["text"]},
        {"role": "user", "content": "And then?"},
    ]
    assert {"token_ids", "stats", "config", "seed", "hardware", "lossless"} <= set(first)
    plain = run("chat", *SHORT, stdin="Hello!\n\nAnd then?\n")
    assert (plain.out, plain.err) == (f"{first['text']}\n{second['text']}\n", "")


def test_reset_starts_over_and_exit_leaves(run: Run) -> None:
    result = run("chat", *SHORT, "--json", stdin="Hello!\n/reset\nHello!\n/exit\nHello!\n")
    first, second = result.records
    assert first["messages"] == second["messages"]
    assert first["token_ids"] == second["token_ids"]
    assert result.err == "starting over\n"
    assert run("chat", *SHORT, "--quiet", stdin="/reset\n").err == ""


def test_nothing_piped_in_is_no_turn(run: Run) -> None:
    assert (result := run("chat", *SHORT)).code == 0
    assert (result.out, result.err) == ("", "")


def test_an_unknown_command_ends_a_script_but_not_a_conversation(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETOKEN_NO_PROGRESS", "1")
    error = "error: unknown command `/rest`\n\nhint: did you mean `/reset`?"
    piped = run("chat", *SHORT, "--json", stdin="Hello!\n/rest\nHello!\n")
    assert (piped.code, len(piped.records)) == (2, 1)
    assert piped.err.startswith(error)
    typed = run("chat", *SHORT, "--json", stdin="Hello!\n/rest\nHello!\n", terminal="in")
    assert (typed.code, len(typed.records)) == (0, 2)
    assert f"> {error}" in typed.err


def test_a_conversation_that_outgrows_the_context_says_so(run: Run) -> None:
    long = "word " * 2100
    result = run("chat", *SHORT, "--json", stdin=f"Hello!\n{long}\n")
    assert (result.code, len(result.records)) == (2, 1)
    assert result.err.startswith("error: the conversation does not fit any more: the prompt has ")
    assert result.err.endswith("\n\nhint: write /reset to start over\n")


def test_a_model_without_a_chat_template_cannot_converse(run: Run, no_weights: None, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(Path(str(BUILTIN / "pair" / "draft")), folder)
    (folder / "chat_template.jinja").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    result = run("chat", "--target", str(folder), stdin="Hello!\n")
    assert (result.code, result.out) == (2, "")
    assert "has no chat template" in result.err
    assert "hint: use `foretoken generate`" in result.err
