"""Count first, divide last."""

import json
from dataclasses import fields

import pytest

from foretoken.metrics import Stats, total
from foretoken.types import Counts

COUNTS = Counts(
    num_tokens=30,
    num_target_forwards=12,
    num_draft_forwards=40,
    num_drafted=36,
    num_tested=24,
    num_accepted=18,
    num_cut=0,
)


def test_rates_by_hand() -> None:
    stats = Stats(COUNTS, 2.0)
    assert stats.num_discarded == 18
    assert stats.block_efficiency == 2.5
    assert stats.verification_rate == 0.4
    assert stats.acceptance_rate == 0.75  # of those tested, not of those drafted
    assert stats.discard_rate == 0.6
    assert stats.tokens_per_s == 15.0


def test_total_sums_every_count_and_leaves_its_parts_alone() -> None:
    one, two = Counts(*range(1, 8)), Counts(*range(10, 80, 10))
    result = total([one, two])
    assert [getattr(result, f.name) for f in fields(Counts)] == [11, 22, 33, 44, 55, 66, 77]
    assert (one, two) == (Counts(*range(1, 8)), Counts(*range(10, 80, 10)))
    assert total([]) == Counts()


def test_rates_of_a_total_are_ratios_of_sums() -> None:
    """Not means of ratios, which would let a short request weigh as much as a long one."""
    short = Counts(num_tokens=2, num_target_forwards=2)
    long = Counts(num_tokens=90, num_target_forwards=30)
    assert Stats(total([short, long]), 1.0).block_efficiency == 92 / 32


def test_nothing_divided_by_nothing_is_zero() -> None:
    published = Stats(Counts(), 0.0).to_json()
    assert set(published.values()) == {0}


def test_json_holds_every_count_and_rate() -> None:
    stats = Stats(COUNTS, 2.0)
    published = stats.to_json()
    rates = {name for name, value in vars(Stats).items() if isinstance(value, property)}
    assert set(published) == {f.name for f in fields(Counts)} | rates | {"seconds"}
    assert all(published[name] == getattr(stats, name) for name in rates)
    assert json.loads(json.dumps(published)) == published


@pytest.mark.parametrize("name", [f.name for f in fields(Counts)])
def test_counts_start_at_zero(name: str) -> None:
    assert name.startswith("num_")
    assert getattr(Counts(), name) == 0
