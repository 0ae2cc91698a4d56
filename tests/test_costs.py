"""What steps cost: curves, their drift, and costs that are given."""

from __future__ import annotations

import pytest

from foretoken.costs import GivenCosts, MeasuredCosts, interpolate


def test_a_curve_is_linear_between_its_points_and_goes_on_with_its_last_slope() -> None:
    points = {2: 1.0, 4: 3.0, 8: 5.0}
    assert [interpolate(points, size) for size in (1, 2, 3, 4, 6, 8, 10)] == [1, 1, 2, 3, 4, 5, 6]
    assert interpolate({4: 3.0}, 99) == 3.0


def test_given_costs_do_not_learn() -> None:
    costs = GivenCosts(0.2, {1: 1.0, 5: 3.0})
    costs.observe(1, 1, 99.0, 1, 99.0)
    assert (costs.draft_s(1), costs.verify_s(1), costs.verify_s(3)) == (0.2, 1.0, 2.0)
    assert GivenCosts(0.2).verify_s(17) == 1.0


def test_measured_costs_follow_the_machine_also_where_nothing_was_measured() -> None:
    costs = MeasuredCosts({1: 0.1}, {1: 1.0, 2: 1.0, 4: 2.0})
    assert (costs.draft_s(1), costs.verify_s(3)) == (0.1, 1.5)
    for _ in range(3):  # everything takes twice as long
        costs.observe(1, 2, 0.4, 2, 2.0)
    assert costs.draft_s(1) == pytest.approx(0.2)
    assert costs.verify_s(4) == pytest.approx(4.0)
    for _ in range(3):  # but four tokens three times as long
        costs.observe(1, 0, 0.0, 4, 6.0)
    assert costs.verify_s(4) == pytest.approx(6.0)
    assert costs.verify_s(2) == pytest.approx(2.0)


def test_one_hiccup_changes_nothing() -> None:
    costs = MeasuredCosts({1: 0.1}, {1: 1.0, 4: 1.5})
    for seconds in (1.0, 1.0, 60.0, 1.0, 1.0):
        costs.observe(1, 1, 0.1, 1, seconds)
    assert costs.verify_s(1) == 1.0
    assert costs.verify_s(4) == 1.5


def test_steps_without_a_draft_teach_nothing_about_drafting() -> None:
    costs = MeasuredCosts({1: 0.1}, {1: 1.0})
    for _ in range(9):
        costs.observe(1, 0, 0.001, 1, 1.0)
    assert costs.draft_s(1) == 0.1
