"""`bench/gpu.sh`, without a GPU: what it asks for exists, what it writes is whole, and it ends in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import foretoken
from tests.cli.conftest import Run

ROOT = Path(foretoken.__file__).parent.parent
KEPT = {"hardware": {"gpu": "a GPU"}, "config": {"target": "4x"}, "growth": {"factor": 4}}
LINE = json.dumps({**KEPT, "samples": [1], "prompts": [2], "growth": {"factor": 4, "folder": "somewhere"}})


def script(tmp_path: Path, command: str, *options: str, **settings: str) -> tuple[int, str, dict[str, Any] | None]:
    """Exit code, stderr, and what was written, if anything was, with a shell command in place of `foretoken`."""
    program, result = tmp_path / "foretoken", tmp_path / "result.json"
    program.write_text("#!/bin/sh\n" + command)
    program.chmod(0o755)
    env = os.environ | {"FORETOKEN": str(program), "PYTHON": sys.executable, "TMPDIR": str(tmp_path)} | settings
    done = subprocess.run(
        [str(ROOT / "bench" / "gpu.sh"), str(result), *options], env=env, capture_output=True, text=True, check=False
    )
    assert not list(tmp_path.glob("tmp.*"))
    return done.returncode, done.stderr, json.loads(result.read_text()) if result.read_text() else None


def test_a_small_run_on_a_cpu(run: Run, tmp_path: Path) -> None:
    """What the script asks for is done in this process, which has torch already, and then handed to the script."""
    small = {"GROW": "1x", "LIMIT": "1", "TOKENS": "3", "DEVICE": "cpu"}
    options = ("--dtype", "float32")
    script(tmp_path, f"echo \"$*\" >>'{tmp_path}/asked'\necho '{LINE}'\n", *options, **small)
    for number, words in enumerate((tmp_path / "asked").read_text().splitlines()):
        done = run(*words.split())
        assert done.code == 0, done.err
        (tmp_path / f"said-{number}").write_text(done.out)
    say = f'for said in \'{tmp_path}\'/said-*; do cat "$said"; rm "$said"; exit; done\n'
    code, errors, result = script(tmp_path, say, *options, **small)
    assert code == 0, errors
    assert result is not None
    assert result["complete"]
    assert result["device"]
    (measured,), (profiled,) = result["runs"], result["profiles"]
    assert measured["config"]["target"] == "builtin:pair 1x"
    assert measured["config"]["backend"] == "graphs"
    assert [row["profile"] for row in measured["methods"]] == [None] * len(measured["methods"])
    assert all(row["profile"]["step_s"] > 0 for row in profiled["methods"])
    assert not {"samples", "prompts"} & (set(measured) | set(profiled))


def test_what_is_done_when_time_is_up_is_kept(tmp_path: Path) -> None:
    slow = f"echo '{LINE}'\nprintf '%s' '{{\"half'\nexec sleep 60\n"
    code, errors, result = script(tmp_path, slow, ALLOWED="1")
    assert (code, errors.count("time is up")) == (0, 2)
    assert result is not None
    assert (result["complete"], result["device"]) == (False, "a GPU")
    assert result["runs"] == [KEPT]
    assert result["profiles"] == []


@pytest.mark.parametrize("code", [1, 2])
def test_a_failure_is_handed_on(code: int, tmp_path: Path) -> None:
    found, errors, result = script(tmp_path, f"echo 'error: no such device' >&2\nexit {code}\n")
    assert (found, errors, result) == (code, "error: no such device\n", None)
