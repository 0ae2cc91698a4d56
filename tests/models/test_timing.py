"""What is timed when a pair is loaded, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from foretoken.models import timing
from foretoken.models.timing import calibrate
from tests.contract.table import TableModel, random_table


def test_plain_decoding_costs_what_it_takes_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small model needs some steps until it is back in the processor's caches after one of another width."""
    read: list[int] = []

    def forwards_s(model: Any, size: int, cache: Any, count: int = 1) -> float:
        same = next((i for i, other in enumerate(reversed(read)) if other != size), len(read))
        read.append(size)
        return size + (3.0, 2.0, 1.0, 0.5)[min(same, 3)]

    monkeypatch.setattr(timing, "forwards_s", forwards_s)
    costs = calibrate(TableModel(random_table(1, 3)), None)
    assert costs.verify_s(1) == 1.5
    assert costs.verify_s(4) == 6.0  # after one of the same width
    assert costs.switch_s(4, after=1) == 1.0
    begins = [i for i, size in enumerate(read) if size == 1 and read[i - 1 : i] != [1]]
    assert {tuple(read[i : i + 6]) for i in begins} == {(1, 1, 1, 1, 1, 2)}
