"""`foretoken methods`: a table, JSON, and the page docs/methods.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import foretoken
from foretoken.registry import METHODS
from tests.cli.conftest import Run

REPOSITORY = Path(foretoken.__file__).parents[1]
NAMES = [(station, name) for station, names in METHODS.items() for name in names]

WITHOUT_MODEL_LIBRARIES = """
import sys
import foretoken.cli.main
print(sorted({"torch", "transformers", "numpy"} & set(sys.modules)))
"""


def test_every_registered_method_is_described(run: Run, no_weights: None) -> None:
    record = run("methods", "--json").record
    assert record["schema"] == "foretoken.methods/1"
    assert [(one["station"], one["name"]) for one in record["methods"]] == NAMES
    for one in record["methods"]:
        assert one["idea"].endswith("."), one["name"]
        assert (REPOSITORY / one["file"]).is_file(), one["name"]
        for option in one["options"]:
            assert option["flag"].startswith(f"--{one['station']}."), option
            assert option["meaning"].endswith("."), option


def test_the_table_names_them_all_and_says_what_is_lossy(run: Run, stand_ins: None, no_weights: None) -> None:
    result = run("methods")
    assert (result.code, result.err) == (0, "")
    words = result.out.split()
    assert all(name in words for _, name in NAMES)
    assert words.count("LOSSY") == 1
    assert "--length.threshold 0.6" in result.out


def test_the_page_is_up_to_date(run: Run, no_weights: None) -> None:
    page = REPOSITORY / "docs" / "methods.md"
    result = run("methods", "--markdown")
    assert result.out == run("methods", "--markdown", terminal="out err").out
    assert result.out == page.read_text(encoding="utf-8"), "write it with `foretoken methods --markdown`"
    for line in result.out.splitlines():
        if line.startswith("| ") and "](../" in line:
            assert (page.parent / line.rpartition("](")[2].partition(")")[0]).is_file(), line


def test_the_command_line_imports_no_model_library_until_it_needs_one() -> None:
    command = [sys.executable, "-c", WITHOUT_MODEL_LIBRARIES, str(REPOSITORY / "foretoken")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
