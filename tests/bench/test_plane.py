"""The baseline, and how far below the line of fixed lengths a policy lies."""

from __future__ import annotations

from typing import Any

import pytest

from foretoken.bench.methods import BASELINE, with_baseline
from foretoken.bench.plane import below_fixed_line, curves, fixed_line
from foretoken.bench.report import best_fixed, summarise
from foretoken.bench.run import Sample
from foretoken.types import Counts


def row(method: str, discard: float, verification: float) -> dict[str, Any]:
    return {"method": method, "discard_rate": discard, "verification_rate": verification}


ROWS = [
    row("plain", 0, 1),
    row("fixed:2", 1, 0.4),
    row("fixed:1", 0.5, 0.6),
    row("b:1", 0.25, 0.7),
    row("b:2", 0.6, 0.5),
]


def test_the_line_goes_from_plain_decoding_through_the_fixed_lengths() -> None:
    assert fixed_line(ROWS) == [(0, 1), (0.5, 0.6), (1, 0.4)]


@pytest.mark.parametrize(
    ("discard", "verification", "below"), [(0.25, 0.7, 0.1), (0.75, 0.6, -0.1), (0, 0.2, 0.8), (1, 0.4, 0)]
)
def test_the_distance_at_the_same_discard_rate(discard: float, verification: float, below: float) -> None:
    assert below_fixed_line(row("x", discard, verification), fixed_line(ROWS)) == pytest.approx(below)


def test_no_distance_where_there_is_no_line() -> None:
    line = fixed_line(ROWS)
    assert below_fixed_line(row("x", 1.1, 0.1), line) is None
    assert below_fixed_line(row("plain", 0, 1), line) is None
    assert below_fixed_line(row("fixed:1", 0.5, 0.6), line) is None
    assert below_fixed_line(row("x", 0, 0.5), fixed_line([])) is None


def test_curves_by_family() -> None:
    found = curves(ROWS)
    assert list(found) == ["plain", "fixed", "b"]
    assert [point["method"] for point in found["b"]] == ["b:1", "b:2"]


def test_the_baseline_is_the_fastest_fixed_length() -> None:
    assert best_fixed({"plain": 9, "fixed:1": 2, "fixed:2": 3, "confidence": 4}) == "fixed:2"
    assert best_fixed({"plain": 9, "confidence": 4}) is None
    assert with_baseline(["confidence"]) == [*BASELINE, "confidence"]
    assert with_baseline(["fixed:3", "confidence"]) == ["fixed:3", "confidence"]


def test_speed_over_the_baseline() -> None:
    times = {"plain": [4.0, 4.0], "fixed:1": [2.0, 2.0], "fixed:2": [1.0, 2.0], "x": [1.0, 1.0]}
    counts = Counts(num_tokens=10, num_target_forwards=4, num_drafted=8, num_tested=7, num_accepted=6)
    samples = [
        Sample(method, i, 0, 0.1, s, counts, [(2, 2), (2, 1), (3, 3), (1, 0)], [1])
        for method, seconds in times.items()
        for i, s in enumerate(seconds)
    ]
    rows = {one["method"]: one for one in summarise(samples)}
    assert {name: one["over_best_fixed"] for name, one in rows.items()} == pytest.approx(
        {"plain": 3 / 8, "fixed:1": 3 / 4, "fixed:2": 1, "x": 3 / 2}
    )
    assert rows["x"]["over_best_fixed_median"] == pytest.approx(1.5)
    assert rows["x"]["candidate_lengths"] == [0, 2, 4, 2]
    assert rows["x"]["accepted_lengths"] == [2, 2, 2, 2]
    (without,) = summarise([s for s in samples if s.method == "plain"])
    assert without["over_best_fixed"] is without["over_best_fixed_low"] is without["below_fixed_line"] is None
