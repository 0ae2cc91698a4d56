"""What `foretoken bench` writes: the report shows the JSON, the JSON is as documented."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import foretoken
from foretoken.bench.html import page
from foretoken.bench.profile import STATIONS
from foretoken.bench.run import Sample
from foretoken.types import Counts
from tests.cli.conftest import Run

DOCS = Path(foretoken.__file__).parent.parent / "docs" / "bench.md"
METHODS = "plain,fixed:1..2,confidence:0.4,confidence:0.6,specdec++,oracle"
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\w)")
VOID = {"meta", "path", "use", "link", "br", "hr", "img"}


class Text(HTMLParser):
    """The text a reader sees outside pictures, and whether every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"svg", "style"} & set(self.open):
            self.text.append(data)


def numbers(value: Any) -> set[str]:
    """Every number of a JSON value as a page may show it, and those inside its texts."""
    if isinstance(value, dict):
        return set().union(*(numbers(one) for one in value.values()), *(numbers(key) for key in value))
    if isinstance(value, list):
        return set().union(*(numbers(one) for one in value))
    if isinstance(value, str):
        return set(NUMBER.findall(value))
    if isinstance(value, float):
        return {f"{value:.2f}", f"{value:.3f}", f"{value:g}", str(value)} | {f"{abs(value):.2f}"}
    return {str(value)}


@pytest.fixture
def written(run: Run, tmp_path: Path) -> tuple[dict[str, Any], str]:
    """One run's JSON and report."""
    file = tmp_path / "report.html"
    result = run(
        *("bench", "--limit", "2", "--max-new-tokens", "12", "--dtype", "float32", "--check", "--json"),
        *("--profile", "--simulate", "--draft-costs", "here,0.1", "--draft", "builtin:pair"),
        *("--methods", METHODS, "--html", str(file), "--answers", str(tmp_path / "answers")),
    )
    assert (result.code, result.err) == (0, "")
    lines = (tmp_path / "answers" / "fixed-2.jsonl").read_text().splitlines()
    assert [json.loads(line)["question_id"] for line in lines] == ["word problem", "Python"]
    return result.record, file.read_text()


def test_every_number_of_the_report_is_in_the_json(written: tuple[dict[str, Any], str]) -> None:
    record, html = written
    parser = Text()
    parser.feed(html)
    assert parser.open == []
    found = NUMBER.findall(" ".join(parser.text))
    assert len(found) > 150
    assert not set(found) - numbers({key: value for key, value in record.items() if key != "samples"})
    assert "Draft step at 0.10 of a target step" in html


def test_the_report_needs_nothing_else(written: tuple[dict[str, Any], str]) -> None:
    _, html = written
    assert "<script" not in html
    assert not re.search(r"""(src|href)=["'](?!#)|@import|url\((?!#)""", html)
    assert html.count("<svg") == 2 + 6 + 2  # speed-ups and plane, lengths of what drafts, calibration


def test_names_from_a_file_cannot_write_into_the_page(written: tuple[dict[str, Any], str]) -> None:
    record, _ = written
    record["config"]["target"] = "<script>alert(1)</script>"
    assert "<script" not in page(record)


def test_the_json_is_as_documented(written: tuple[dict[str, Any], str]) -> None:
    record, _ = written
    sections = [part for part in re.split(r"^##+ ", DOCS.read_text(), flags=re.MULTILINE) if "\n| --- | --- |" in part]
    top, rows, samples, stations, simulated = (
        re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) for section in sections
    )
    assert set(top) == set(record)
    assert [set(one) for one in record["simulation"]] == [set(simulated)] * 2
    assert [one["measured"] for one in record["simulation"]] == [True, False]
    assert record["simulation"][1]["draft_cost"] == 0.1
    assert stations == list(record["samples"][0]["stations"]) == list(STATIONS)
    assert all(set(row["profile"]["shares"]) == set(STATIONS) for row in record["methods"])
    named = sections[1].partition("where the time of a step goes:")[2].partition(" |")[0]
    assert set(re.findall(r"`(\w+)`", named)) == set(record["methods"][0]["profile"])
    listed = set(re.findall(r"`(\w+)`", sections[4].partition("one row per method")[2])) - {"plain", "oracle"}
    assert all(set(row) == listed for one in record["simulation"] for row in one["methods"])
    assert rows
    assert all(set(rows) == set(row) for row in record["methods"])
    assert set(samples) == set(record["samples"][0]) == set(Sample.__slots__)
    assert set(record["samples"][0]["counts"]) == set(Counts.__slots__) < set(rows)
    assert record["best_fixed"] in ("fixed:1", "fixed:2")
    assert set(record["curves"]) == {"plain", "fixed", "confidence", "specdec++", "oracle"}
    assert {"calibration_error", "reliability"} < set(record["calibration"]["acceptance_head"])
    assert record["check"]["differing"] == []
