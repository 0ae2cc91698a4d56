"""Runs pytest against a mutated copy of the package, in a forked child that has the heavy imports behind it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.mutation.mutants import Mutant

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 180
# A mutant counts as noticed only when a test says so. Code that no longer runs at all proves nothing about the tests.
NOTICED = {"AssertionError", "Failed"}


@dataclass(frozen=True)
class Outcome:
    """What the tests said.

    Attributes:
        code: pytest's exit code; 0 all passed, 1 a test failed; negative for the signal that ended it.
        test: first failing test.
        error: type of its exception, or what else happened.
    """

    code: int
    test: str = ""
    error: str = ""
    seconds: float = 0.0

    @property
    def green(self) -> bool:
        return self.code == 0

    @property
    def red(self) -> bool:
        return self.code == 1 and self.error in NOTICED


class Workshop:
    """A copy of package and tests in a folder of its own, into which bugs are planted one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.package = self.folder / "foretoken"
        skip = shutil.ignore_patterns("__pycache__", "data", "mutation")
        for part in ("foretoken", "tests"):
            shutil.copytree(ROOT / part, self.folder / part, ignore=skip)
        (self.package / "data").symlink_to(ROOT / "foretoken" / "data")
        shutil.copy(ROOT / "pyproject.toml", self.folder)

    def run(self, mutant: Mutant | None, tests: Sequence[str]) -> Outcome:
        """Run tests against the copy, with the bug in it if there is one."""
        if mutant is None:
            return self._fork(tests, 0)
        file = self.package / mutant.file
        good = file.read_text()
        file.write_text(mutant.apply(self.package))
        try:
            return self._fork(tests, LIMIT_S)
        finally:
            file.write_text(good)

    def _fork(self, tests: Sequence[str], limit_s: int) -> Outcome:
        report = self.folder / "outcome.json"
        report.unlink(missing_ok=True)
        started = time.perf_counter()
        child = os.fork()
        if child == 0:
            signal.alarm(limit_s)  # ends a mutant that runs forever; 0 is no limit
            try:
                self._child(tests, report)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        seconds = time.perf_counter() - started
        if not report.is_file():
            return Outcome(-os.WTERMSIG(status), "", "no report (timeout or crash)", seconds)
        return Outcome(**{**json.loads(report.read_text()), "seconds": seconds})

    def _child(self, tests: Sequence[str], report: Path) -> None:
        os.chdir(self.folder)
        sys.dont_write_bytecode = True
        for name in [name for name in sys.modules if name.split(".")[0] in ("foretoken", "tests")]:
            del sys.modules[name]
        sys.path[:] = [str(self.folder), *(p for p in sys.path if p and Path(p).resolve() != ROOT)]
        first = FirstFailure()
        with (self.folder / "log.txt").open("w") as log, redirect_stdout(log), redirect_stderr(log):
            code = pytest.main(
                ["-x", "-q", "--tb=short", "-p", "no:cacheprovider", f"--rootdir={self.folder}", *tests],
                plugins=[first],
            )
        used = Path(sys.modules["foretoken"].__file__ or "").resolve()
        if self.package not in used.parents:
            code, first.error = 99, f"tested {used}, not the copy"
        outcome = asdict(Outcome(int(code), first.test, first.error))
        report.write_text(json.dumps(outcome))


class FirstFailure:
    """A pytest plug-in that remembers the first failure, and whether it was a test that failed."""

    def __init__(self) -> None:
        self.test = self.error = ""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
        report = yield
        if report.failed and not self.error and call.excinfo is not None:
            name = call.excinfo.typename
            self.test, self.error = item.nodeid, name if call.when == "call" else f"{name} in {call.when}"
        return report

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.error:
            self.test, self.error = report.nodeid, "could not be collected"
