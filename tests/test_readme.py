"""What the README shows is what one gets."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import shlex
from pathlib import Path

import pytest

import foretoken
from foretoken.cli.main import app

README = Path(foretoken.__file__).parent.parent / "README.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def blocks() -> list[tuple[str, str]]:
    if not README.is_file():
        pytest.skip("the package was installed without its README")
    return BLOCK.findall(README.read_text(encoding="utf-8"))


def test_the_first_example_prints_what_stands_below_it(
    blocks: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Hardware with bfloat16 would use it, and may break a tie the other way.
    monkeypatch.setattr(foretoken, "load", functools.partial(foretoken.load, dtype="float32"), raising=False)
    at = next(index for index, (language, _) in enumerate(blocks) if language == "python")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(blocks[at][1], {})
    assert printed.getvalue() == blocks[at + 1][1]


def test_the_marked_answer_is_what_the_command_prints(
    blocks: list[tuple[str, str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = next(text for _, text in blocks if text.startswith("$ foretoken generate"))
    command, _, expected = shown.partition("\n")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(SystemExit) as left:
        app([*shlex.split(command)[2:], "--dtype", "float32", "--quiet"])
    assert left.value.code == 0
    assert capsys.readouterr().err == expected


def test_every_command_it_names_exists(blocks: list[tuple[str, str]]) -> None:
    named = set(
        re.findall(r"foretoken (generate|chat|demo|doctor|bench|train|methods)\b", README.read_text(encoding="utf-8"))
    )
    assert named == {"generate", "demo", "doctor", "bench", "train", "methods"} | (named & {"chat"})
    makefile = (README.parent / "Makefile").read_text()
    for target in re.findall(r"\bmake (\w+)", README.read_text(encoding="utf-8")):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
