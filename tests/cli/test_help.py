"""Help, version, and errors of our own making."""

from __future__ import annotations

import runpy
import shlex
import sys

import pytest
import typer

import foretoken
from foretoken.cli import generate
from foretoken.cli.main import app
from foretoken.registry import METHODS
from tests.cli.conftest import Run

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
pytestmark = pytest.mark.usefixtures("no_weights")


def examples(text: str) -> list[str]:
    return [line.strip() for line in text.partition("Examples:\n")[2].splitlines()]


def test_the_version(run: Run) -> None:
    result = run("--version")
    assert (result.code, result.out, result.err) == (0, f"foretoken {foretoken.__version__}\n", "")


def test_the_package_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["foretoken", "--version"])
    monkeypatch.delitem(sys.modules, "foretoken.__main__", raising=False)  # where another test has imported it
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("foretoken", run_name="__main__")
    assert capsys.readouterr().out == f"foretoken {foretoken.__version__}\n"


def test_help_lists_every_command(run: Run) -> None:
    result = run()
    assert (result.code, result.err) == (0, "")
    assert result.out == run("-h").out == run("--help").out
    assert {"bench", "chat", "demo", "generate", "methods"} <= set(COMMANDS)
    for command in COMMANDS:
        assert f"\n  {command} " in result.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_examples_that_can_be_typed(run: Run, command: str) -> None:
    result = run(command, "-h")
    assert (result.code, result.err) == (0, "")
    found = examples(result.out)
    assert found
    for example in found:
        words = shlex.split(example.rpartition("| foretoken ")[2].removeprefix("foretoken ").partition(" | ")[0])
        parser = typer.main.get_command(app)
        while words and words[0] in getattr(parser, "commands", {}):
            parser = parser.commands[words.pop(0)]  # type: ignore[attr-defined]
        parser.make_context("foretoken", list(words))


def test_every_station_has_its_option(run: Run) -> None:
    text = run("generate", "-h").out
    assert all(f"--{station} " in text for station in METHODS)
    assert "--option" not in text


def test_a_bug_is_called_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("float division by zero")

    monkeypatch.setattr(generate, "open_llm", fails)
    result = run("generate", "Hi")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: unexpected ZeroDivisionError: float division by zero\n\nhint: this is a bug")
    assert "Traceback" not in result.err
