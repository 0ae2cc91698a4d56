"""The command line in this process, with streams of its own and weights that are loaded once."""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import pytest

from foretoken.cli.main import app
from foretoken.engine import Engine
from foretoken.models.hf import HFModel
from foretoken.models.source import Checkpoint
from foretoken.registry import METHODS

QUESTION = "Write a Python function that returns the factorial of a number."


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """The lines of stdout, each a JSON object."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def record(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        (record,) = self.records
        return record


class Terminal(io.StringIO):
    """A stream someone watches."""

    def isatty(self) -> bool:
        return True


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call the command line as a shell would: `run("generate", "Hi", stdin="...", terminal="out err")`."""

    def call(*args: str, stdin: str = "", terminal: str = "") -> Result:
        out, err = (Terminal() if name in terminal else io.StringIO() for name in ("out", "err"))
        monkeypatch.setattr(sys, "stdin", Terminal(stdin) if "in" in terminal.split() else io.StringIO(stdin))
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as left:
            app(list(args))
        assert isinstance(left.value.code, int)
        return Result(left.value.code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture(scope="session")
def loaded() -> dict[tuple[Any, ...], HFModel]:
    return {}


@pytest.fixture(autouse=True)
def load_once(loaded: dict[tuple[Any, ...], HFModel], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each checkpoint's weights are read once for all tests."""
    read = Checkpoint.load

    def load(checkpoint: Checkpoint, *args: Any) -> HFModel:
        key = (checkpoint.path, checkpoint.quantization, *args)
        if key not in loaded:
            loaded[key] = read(checkpoint, *args)
        return loaded[key]

    monkeypatch.setattr(Checkpoint, "load", load)


@pytest.fixture
def no_weights(load_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading weights fails the test."""

    def load(*_: Any) -> HFModel:
        pytest.fail("weights were loaded")

    monkeypatch.setattr(Checkpoint, "load", load)


@pytest.fixture
def ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Lets Ctrl-C come while the engine is in its n-th step."""
    before = signal.getsignal(signal.SIGINT)
    step = Engine.step

    def at(number: int) -> None:
        steps = iter(range(1, 10_000))

        def interrupted(engine: Engine) -> Any:
            if next(steps) == number:
                signal.raise_signal(signal.SIGINT)
            return step(engine)

        monkeypatch.setattr(Engine, "step", interrupted)

    yield at
    assert signal.getsignal(signal.SIGINT) is before, "the handler of Ctrl-C was not restored"


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers the rules `lossy` and `liar`."""
    for name in ("Lossy", "Liar"):
        monkeypatch.setitem(METHODS["accept"], name.lower(), f"tests.cli.rules:{name}")
