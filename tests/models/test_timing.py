"""What is timed when a pair is loaded, and in which order."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from foretoken.models import timing
from foretoken.models.timing import IN_A_ROW, calibrate
from tests.contract.table import TableModel, random_table


@pytest.mark.parametrize(("unit_s", "row"), [(5e-5, IN_A_ROW), (1.0, 1)], ids=["small", "large"])
def test_what_fits_into_caches_is_timed_in_a_row(monkeypatch: pytest.MonkeyPatch, unit_s: float, row: int) -> None:
    """A small model needs some steps until it is back in the processor's caches after one of another width."""
    read: list[int] = []

    def forwards_s(model: Any, size: int, cache: Any, count: int = 1) -> float:
        same = next((i for i, other in enumerate(reversed(read)) if other != size), len(read))
        read.append(size)
        return unit_s * (size + (3.0, 2.0, 1.0, 0.5)[min(same, 3)])

    monkeypatch.setattr(timing, "forwards_s", forwards_s)
    costs = calibrate(TableModel(random_table(1, 3)), None)
    cold = 0.5 if row > 1 else 2.0
    assert costs.verify_s(1) == pytest.approx(unit_s * (1 + cold))  # after one of the same width
    assert costs.verify_s(4) == pytest.approx(unit_s * (4 + cold))
    assert costs.switch_s(4, after=1) == pytest.approx(unit_s * (3 - cold))
    begins = [i for i, size in enumerate(read) if read[i - 1 : i] != [size]]
    assert {end - begin - 1 for begin, end in pairwise(begins)} == {row}


def test_a_target_that_reads_one_token_as_six(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wide(TableModel):
        def width(self, tokens: int) -> int:
            return max(tokens, 6)

    monkeypatch.setattr(timing, "forwards_s", lambda model, size, cache, count=1: 1.0 * size)
    costs = calibrate(Wide(random_table(1, 3)), None)
    assert costs.plain_s(1) == costs.verify_s(5) == 6.0
    assert costs.draft_s(1) == pytest.approx(0.06)
