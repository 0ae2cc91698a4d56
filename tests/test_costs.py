"""What steps cost: curves, their drift, and costs that are given."""

from __future__ import annotations

from random import Random

import pytest

from foretoken.costs import GivenCosts, MeasuredCosts, ScaledCosts
from foretoken.curves import RECENT, interpolate
from foretoken.prices import TYPICAL, Prices, prices, typical
from foretoken.request import Request
from tests.length.by_hand import batch


def test_a_curve_is_linear_between_its_points_and_goes_on_with_its_last_slope() -> None:
    points = {2: 1.0, 4: 3.0, 8: 5.0}
    assert [interpolate(points, size) for size in (1, 2, 3, 4, 6, 8, 10)] == [1, 1, 2, 3, 4, 5, 6]
    assert interpolate({4: 3.0}, 99) == 3.0


def test_given_costs_do_not_learn() -> None:
    costs = GivenCosts(0.2, {1: 1.0, 5: 3.0})
    costs.observe(1, 1, 99.0, 1, 99.0)
    assert (costs.draft_s(1), costs.verify_s(1), costs.verify_s(3)) == (0.2, 1.0, 2.0)
    assert GivenCosts(0.2).verify_s(17) == 1.0


def test_steps_are_learnt_from_together_and_once() -> None:
    """From the ninth on every ninth step, whatever its width."""
    costs, changes = MeasuredCosts({1: 0.1}, {1: 1.0, 4: 1.0}), list[int]()
    for _ in range(3 * RECENT + 2):
        costs.observe(1, 3, 0.3, 4, 1.2)
        changes.append(costs.changes)
    assert changes == [*range(1, 9), *[9] * 9, *[10] * 9, *[11] * 3]
    assert costs.last_s == 1.5
    for _ in range(RECENT - 2):
        costs.observe(1, 0, 0.0, 1, 1.1)
    assert costs._verify.count == 4 * RECENT
    assert costs.verify_s(4) == pytest.approx(1.2, rel=0.02)


class Prompt(MeasuredCosts):
    """Learns from every step at once."""

    def observe(self, rows: int, forwards: int, draft_s: float, tokens: int, verify_s: float) -> None:
        super().observe(rows, forwards, draft_s, tokens, verify_s)
        self._learn()


def test_what_is_learnt_later_is_known_as_soon_as_if_it_were_learnt_at_once() -> None:
    dice = Random(0)
    given = {1: 0.1, 4: 0.3}, {1: 1.0, 4: 1.2, 8: 2.0}, 0.1, lambda tokens: next(w for w in (1, 4, 8) if w >= tokens)
    late, prompt = MeasuredCosts(*given), Prompt(*given)
    apart, width = 0, 1
    for _ in range(2000):
        if dice.random() < 0.2:
            width = dice.choice([1, 1, 4, 8])
        seconds = dice.uniform(0.9, 1.3) * (1 + width / 8)
        for costs in (late, prompt):
            costs.observe(1, width - 1, 0.1 * width, width, seconds)
        said = [
            [
                *(costs.draft_s(1, count) for count in (1, 4)),
                *(costs.verify_s(tokens) for tokens in (1, 4, 8)),
                costs.switch_s(4),
            ]
            for costs in (late, prompt)
        ]
        apart += said[0] != said[1]
    assert apart == 0


def test_measured_costs_follow_the_machine_also_where_nothing_was_measured() -> None:
    costs = MeasuredCosts({1: 0.1, 2: 0.2}, {1: 1.0, 2: 1.0, 4: 2.0})
    assert (costs.draft_s(1), costs.verify_s(3)) == (0.1, 1.5)
    for _ in range(3):  # everything takes twice as long
        costs.observe(1, 2, 0.4, 2, 2.0)
    assert costs.draft_s(1) == pytest.approx(0.2)
    assert costs.verify_s(4) == pytest.approx(4.0)
    for turn in range(1000):  # but four tokens three times as long
        costs.observe(1, 0, 0.0, 2, 2.0)
        costs.observe(1, 0, 0.0, 2, 2.0)
        costs.observe(1, 0, 0.0, 4, 6.0)
        if turn == 0:
            assert costs.verify_s(4) < 4.4  # one step is no proof
    assert costs.verify_s(4) == pytest.approx(5.5)  # three quarters of the way: the calibration keeps a weight
    assert costs.verify_s(2) == pytest.approx(2.0)


def test_the_first_draft_forward_of_a_step_may_cost_more_than_the_next() -> None:
    costs = MeasuredCosts({1: 1.0, 3: 2.0}, {1: 10.0})
    assert [costs.draft_s(1, forwards) for forwards in (0, 1, 2, 5)] == [0.0, 1.0, 1.5, 3.0]
    for _ in range(50):
        costs.observe(1, 3, 4.0, 1, 10.0)
    assert costs.draft_s(1, 1) == pytest.approx(3.0)  # what is more is there in every step
    assert costs.draft_s(1, 5) == pytest.approx(5.0)
    costs.observe(2, 1, 1.0, 2, 10.0)
    assert costs.draft_s(2, 3) == pytest.approx(2.0)  # two rows are measured on their own
    for _ in range(50):
        costs.observe(1, 3, 8.0, 1, 20.0)
    assert costs.draft_s(1, 5) == pytest.approx(2 * 5.0)  # the whole machine is slower
    for turn in range(100):  # and every forward takes three times as long
        forwards = 1 + turn % 3
        costs.observe(1, forwards, 2 * (3 * (1 + (forwards - 1) / 2) + 1.0), 1, 20.0)
    assert costs.draft_s(1, 3) - costs.draft_s(1, 1) == pytest.approx(2 * (1 + 2 / 3 * 2), rel=0.1)


def test_a_first_draft_that_reads_a_prompt_is_no_price() -> None:
    costs = MeasuredCosts({1: 1.0, 3: 2.0}, {1: 10.0, 4: 12.0})
    costs.observe(1, 3, 90.0, 4, 12.0)
    assert costs.draft_s(1, 3) == pytest.approx(2.0)
    for _ in range(4):
        costs.observe(1, 3, 4.0, 4, 12.0)
    assert costs.draft_s(1, 3) == pytest.approx(4.0, rel=0.1)  # what all the others took is


def test_another_width_costs_more_once() -> None:
    costs = MeasuredCosts(
        {1: 0.1, 2: 0.2}, {1: 1.0, 4: 1.4, 8: 1.8}, 0.5, lambda tokens: 1 if tokens == 1 else 4 if tokens < 5 else 8
    )
    assert costs.switch_s(4) == 0  # nothing was read yet
    for tokens, took in ((4, 1.4), (3, 1.4), (8, 2.3), (8, 1.8), (1, 1.5)):
        costs.observe(1, 0, 0.0, tokens, took)
    assert (costs.switch_s(1), costs.switch_s(2)) == (0, 0.5)
    assert [costs.verify_s(tokens) for tokens in (1, 4, 8)] == pytest.approx([1.0, 1.4, 1.8], rel=0.01)
    price = Prices(costs)
    assert (price.plain_s, price.step_s(0), price.step_s(3)) == pytest.approx((1.0, 1.0, 0.3 + 1.4 + 0.5), rel=0.01)


def test_what_another_width_costs_is_learnt_from_narrower_steps_after_wider_ones() -> None:
    costs = MeasuredCosts({1: 0.1, 2: 0.2}, {1: 1.0, 4: 1.4}, 0.5, lambda tokens: 1 if tokens == 1 else 4)
    for _ in range(9):
        for tokens, took in ((1, 1.0), (1, 1.0), (4, 2.0), (1, 1.8)):
            costs.observe(1, 0, 0.0, tokens, took)
    assert costs.switch_s(4) == pytest.approx(0.8, rel=0.01)
    assert costs.switch_s(1) == 0
    assert costs.switch_s(1, after=4) == pytest.approx(0.8, rel=0.01)
    assert Prices(costs).back_s(2) == pytest.approx(0.8, rel=0.01)
    assert Prices(costs).back_s(0) == 0
    assert ScaledCosts(costs, reads=4).switch_s(1, after=1) == 0


def test_what_is_read_with_one_width_costs_the_same() -> None:
    """Else noise in the sizes one often reads makes the next one look dear, which then is never read."""
    costs = MeasuredCosts({1: 0.1, 2: 0.2}, {1: 1.0, 4: 1.4, 8: 1.8}, width=lambda tokens: 4 if tokens < 5 else 8)
    for _ in range(50):
        costs.observe(1, 1, 0.1, 2, 1.2)
    assert costs.verify_s(2) == costs.verify_s(3) == costs.verify_s(4)


def test_a_machine_that_slows_down_makes_no_width_dear() -> None:
    """Else the width in use looks dear, another one is read, and nothing says any more that it was the machine."""
    costs = MeasuredCosts({1: 0.1}, {1: 1.0, 4: 1.3, 8: 2.2})
    for seconds in [1.3] * 40 + [2.6] * 40:
        costs.observe(1, 0, 0.0, 4, seconds)
        assert costs.verify_s(8) / costs.verify_s(4) == pytest.approx(2.2 / 1.3)
    assert costs.verify_s(8) == pytest.approx(4.4)


def test_what_was_seen_of_a_width_long_ago_says_less() -> None:
    costs = MeasuredCosts({1: 0.1}, {1: 1.0, 4: 1.3})
    for _ in range(20):
        costs.observe(1, 0, 0.0, 1, 1.0)
        costs.observe(1, 0, 0.0, 1, 1.0)
        costs.observe(1, 0, 0.0, 4, 2.6)
    assert 2.1 < costs.verify_s(4) < 2.3
    for _ in range(360):
        costs.observe(1, 0, 0.0, 1, 1.0)
    assert 1.3 < costs.verify_s(4) < 1.45


@pytest.mark.parametrize("switch", [0.0, 0.3])
def test_answers_may_be_remembered_until_they_are_said_to_have_changed(switch: float) -> None:
    rng = Random(0)
    width = {size: 4 * -(-size // 4) for size in range(20)}.__getitem__
    measured = MeasuredCosts({1: 0.1, 4: 0.3}, {1: 1.0, 4: 1.2, 8: 2.0}, switch, width)
    for costs in (measured, ScaledCosts(measured, 2), GivenCosts(0.1, {1: 1.0, 8: 2.0}, switch, width)):
        said: list[float] = []
        at, fresh = (-1, None), 0
        for _ in range(400):
            answers = [ask(size) for size in range(1, 9) for ask in (costs.verify_s, costs.switch_s, costs.plain_s)]
            answers += [costs.draft_s(1, size) for size in range(9)]
            answers += [costs.switch_s(1, after=size) for size in range(1, 9)]
            assert answers == said or (costs.changes, costs.after) != at
            fresh += costs.changes != at[0]
            said, at = answers, (costs.changes, costs.after)
            drafted = rng.choice((0, 0, 3, 3, 3, 7))
            costs.observe(1, drafted, drafted * rng.random(), drafted + 1, 1 + rng.random())
        assert fresh < 200


def test_one_hiccup_changes_nothing() -> None:
    costs = MeasuredCosts({1: 0.1, 2: 0.2}, {1: 1.0, 4: 1.5})
    for seconds in (1.0, 1.0, 60.0, 1.0, 1.0):
        costs.observe(1, 1, 0.1, 1, seconds)
    assert costs.verify_s(1) == 1.0
    assert costs.verify_s(4) == 1.5


def test_steps_without_a_draft_teach_nothing_about_drafting() -> None:
    costs = MeasuredCosts({1: 0.1, 2: 0.2}, {1: 1.0})
    for _ in range(9):
        costs.observe(1, 0, 0.001, 1, 0.999)
    assert costs.draft_s(1) == pytest.approx(0.1)


def test_rows_share_forwards_and_those_that_still_draft_pay_for_more() -> None:
    price = Prices(GivenCosts(0.2, {4: 1.0, 8: 1.4, 12: 1.8}), rows=4, drafting=2)
    assert price.step_s(0) == 1.0
    assert price.step_s(2) == pytest.approx(0.4 + 1.8)
    assert price.share == 2


def test_a_request_that_must_repeat_is_kept_from_the_clock_and_its_neighbours() -> None:
    rows = batch(3)
    for repeats, expected in ((False, Prices(rows.costs, 3, 2)), (True, TYPICAL)):
        rows.rows[0].request = Request((0,), repeats=repeats)
        assert prices(rows.rows[0], rows, 2) == expected
    rows.costs.typical = known = GivenCosts(0.5)
    assert prices(rows.rows[0], rows, 2) == Prices(known)
    rows.costs = ScaledCosts(rows.costs, block=2)
    assert prices(rows.rows[0], rows, 2).costs.draft_s(1, 4) == 1.0


def test_what_is_typical_follows_from_sizes_alone() -> None:
    """A draft forward is never quick, so of a small target it takes nearly a step, of a large one next to nothing."""
    shares = [typical(target, 2.5e6).draft_s(1) for target in (11e6, 168e6, 7.5e9)]
    assert shares == pytest.approx([0.95, 0.0625, 0.0014], rel=0.02)
    assert typical(8e9, 1e9).draft_s(1) == pytest.approx(0.126)
    assert typical(1e9).draft_s(1) == pytest.approx(0.008)
    assert [typical(1e9).verify_s(tokens) for tokens in (1, 2, 5)] == pytest.approx([1.0, 1.13, 1.43])
    assert [typical(11e6).verify_s(tokens) for tokens in (1, 2, 5)] == pytest.approx([1.0, 3.83, 4.13], rel=0.01)
    assert [typical(target).asking for target in (1e7, 1e9)] == pytest.approx([0.3, 0.003])
    assert typical(1e9).guessed
    assert (scaled := ScaledCosts(typical(1e7), reads=2)).guessed
    assert scaled.asking == pytest.approx(0.3)
    assert not GivenCosts(0.1).guessed


def test_a_plain_step_costs_what_it_takes_where_no_other_is_near() -> None:
    costs = MeasuredCosts({1: 0.1, 4: 0.4}, {1: 1.0, 4: 1.1}, 0.3, lambda tokens: 1 if tokens == 1 else 4)
    for _ in range(40):  # steps between others pay for what those leave behind
        costs.observe(1, 0, 0.0, 4, 2.2)
        costs.observe(1, 0, 0.0, 1, 1.6)
    assert costs.age == 80
    assert costs.verify_s(1) > 1.3
    assert (costs.plain_s(1), costs.steady_s(4)) == (1.0, pytest.approx(1.1))  # as calibrated
    for took in (1.9, 1.5, 1.3, 1.2, *[0.9] * 2 * RECENT):
        costs.observe(1, 0, 0.0, 1, took)
    assert costs.age == 0
    assert costs.plain_s(1) == pytest.approx(0.9)
    for took in (2.2, 1.9, 1.6, 1.4, *[1.1] * 14):
        costs.observe(1, 3, 0.6, 4, took)
    assert costs.plain_s(1) == pytest.approx(0.9)
    for _ in range(18):  # the machine slows down
        costs.observe(1, 3, 0.6, 4, 2.2)
    assert costs.plain_s(1) == pytest.approx(1.8)
    assert costs.age == 36
    assert costs.plain_s(2) == costs.verify_s(2)  # of one row only


def test_what_a_width_takes_among_its_like_is_told_by_such_steps() -> None:
    costs = MeasuredCosts({1: 0.1, 4: 0.4}, {1: 1.0, 4: 1.1}, 0.3, lambda tokens: 1 if tokens == 1 else 4)
    for _ in range(9):  # four tokens take longer than calibrated, but one does not
        for took in [1.0] * 9:
            costs.observe(1, 0, 0.0, 1, took)
        for took in (2.2, 1.9, 1.6, 1.4, *[1.5] * 5):
            costs.observe(1, 0, 0.0, 4, took)
    assert 1.25 < costs.steady_s(4) / costs.plain_s(1) < 1.5
    assert (
        costs.steady_s(3) == costs.steady_s(4) == ScaledCosts(costs).steady_s(4) == ScaledCosts(costs, 1, 2).steady_s(2)
    )
    assert costs.steady_s(1) == costs.plain_s(1)


def test_where_a_change_of_width_costs_nothing_every_step_says_how_slow_the_machine_is() -> None:
    costs = MeasuredCosts({1: 0.1, 4: 0.4}, {1: 1.0, 4: 1.1, 8: 1.3})
    for _ in range(18):
        costs.observe(1, 0, 0.0, 4, 2.2)
        costs.observe(1, 0, 0.0, 8, 2.6)
    assert costs.plain_s(1) == pytest.approx(2.0)


def test_where_one_token_is_read_as_several_a_plain_step_is_like_others() -> None:
    costs = MeasuredCosts({1: 0.1, 2: 0.2}, {6: 1.0, 8: 1.8}, 0.3, lambda tokens: 6 if tokens < 7 else 8)
    for tokens in [1] * 50 + [5] * 50:
        costs.observe(1, 0, 0.0, tokens, 2.0 if tokens == 1 else 1.0)
    assert costs.plain_s(1) == costs.verify_s(1) == costs.verify_s(6)
    assert (costs.age, costs.widths) == (0, (8,))


def test_a_width_is_timed_among_its_like() -> None:
    """One that was only seen among others says how slow those are, not that it is dearer than they."""
    costs = MeasuredCosts({1: 0.1, 4: 0.4}, {1: 1.0, 4: 1.3}, 0.2, lambda tokens: 1 if tokens == 1 else 4)
    for _ in range(30):
        for tokens, took in ((4, 2.6), (1, 1.6), (1, 1.0), (1, 1.0)):
            costs.observe(1, 0, 0.0, tokens, took)
    assert costs.verify_s(4) / costs.verify_s(1) == pytest.approx(1.3, rel=0.05)


def test_looking_up_is_part_of_what_is_not_drafting() -> None:
    costs = MeasuredCosts({1: 0.1, 4: 0.4}, {1: 1.0, 4: 1.0})
    for _ in range(50):
        costs.observe(1, 0, 0.5, 4, 1.0)
    assert costs.verify_s(4) == pytest.approx(1.5)
    assert costs.last_s == 1.5
    assert costs.draft_s(1) == pytest.approx(0.15)  # on a machine that is slower in all


def test_what_is_known_for_nothing_is_only_read() -> None:
    price = Prices(GivenCosts(0.3, {1: 1.0, 2: 1.5}))
    assert [price.read_s(drafted) for drafted in (0, 1, 2)] == [1.0, 1.5, 2.0]
    assert price.step_s(2) == pytest.approx(2.6)
