"""The mutation run stays alive: every bug can still be planted, and two of them are planted and noticed here.

All of them: `python -m tests.mutation`.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.mutation.mutants import MUTANTS, Mutant
from tests.mutation.runner import ROOT, Outcome


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_bug_can_still_be_planted(mutant: Mutant) -> None:
    compile(mutant.apply(ROOT / "foretoken"), mutant.file, "exec")
    assert mutant.old != mutant.new
    for test in mutant.tests:
        assert (ROOT / test.partition("::")[0]).is_file()


def test_a_bug_that_cannot_be_planted_is_an_error() -> None:
    with pytest.raises(LookupError, match="found 0 times"):
        Mutant("gone", "rng.py", "text that is not there", "", ()).apply(ROOT / "foretoken")


@pytest.mark.parametrize(
    ("outcome", "red"),
    [
        (Outcome(1, "a test", "AssertionError"), True),
        (Outcome(1, "a test", "Failed"), True),  # pytest.raises did not raise
        (Outcome(0), False),
        (Outcome(1, "a test", "NameError"), False),
        (Outcome(1, "a test", "AssertionError in setup"), False),
        (Outcome(2, "a file", "could not be collected"), False),
        (Outcome(-14, "", "no report (timeout or crash)"), False),
        (Outcome(99, "", "tested the original"), False),
    ],
)
def test_only_a_failing_assertion_counts_as_noticed(outcome: Outcome, red: bool) -> None:
    assert outcome.red is red


def test_planted_bugs_are_noticed() -> None:
    command = [sys.executable, "-m", "tests.mutation", "q is taken as 1", "accepted at u = 0"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ.copy(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 noticed" in done.stdout
