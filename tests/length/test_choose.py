"""Candidates that are known for nothing: how many of them each policy wants."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from foretoken.costs import GivenCosts
from foretoken.length.confidence import Confidence
from foretoken.length.disco import Disco
from foretoken.length.fixed import Fixed
from foretoken.length.renewal import Renewal
from foretoken.models.disco_classifier import DiscoClassifier
from tests.length.by_hand import batch, finished


def test_a_policy_that_says_nothing_else_is_asked_as_if_they_were_drawn() -> None:
    rows = batch(3)
    known = [[0.9, 0.5, 0.9], [], [0.1, 0.9]]
    assert Fixed(Fixed.Config(2)).choose(rows, known) == [2, 0, 2]
    assert Fixed(Fixed.Config(9)).choose(rows, known) == [3, 0, 2]
    assert Confidence(Confidence.Config(0.6)).choose(rows, known) == [2, 0, 1]
    assert Fixed(Fixed.Config(0)).choose(rows, [[0.9]] * 3) == [0, 0, 0]


def test_a_policy_that_needs_more_than_probabilities_takes_what_is_likely() -> None:
    assert Disco(None, DiscoClassifier()).choose(batch(3), [[0.9, 0.8, 0.6], [0.4], []]) == [2, 0, 0]


@pytest.mark.parametrize(("slope", "count"), [(0.0, 4), (0.01, 4), (0.06, 2), (0.3, 2), (0.7, 1), (0.8, 0)])
def test_renewal_takes_as_many_as_pay(slope: float, count: int) -> None:
    """A step brings 1, 1.9, 2.71, 2.79 or 2.86 tokens, and a token takes 0.8 plain steps at first.

    So two candidates are fastest at a slope of 0.06, where the third would pay as well; at 0.7 none is faster than
    usual, and one is better than none.
    """
    rows = batch(1)
    rows.costs = GivenCosts(5.0, {1: 1.0, 2: 1.0 + slope})
    assert Renewal().choose(rows, [[0.9, 0.9, 0.1, 0.9]]) == [count]


def test_renewal_looks_beyond_a_step_in_the_cost() -> None:
    rows = batch(1)
    rows.costs = GivenCosts(0.1, {1: 1.0, 2: 1.9, 3: 1.9})
    assert Renewal().choose(rows, [[0.99]]) == [0]
    assert Renewal().choose(rows, [[0.99, 0.99]]) == [2]


def test_look_ups_that_did_not_pay_are_left_alone_for_a_while() -> None:
    policy, rows = Renewal(), batch(1)
    rows.costs = GivenCosts(0.1, {1: 1.0, 2: 1.5, 3: 2.0})
    (row,) = rows.rows
    pace = policy._pace(row, known=True)
    while not pace.rest:
        assert not policy.declines(rows)
        pace.observe([0.95, 0.95], 0, policy._prices(row, rows, 1))
    rest = pace.rest
    assert policy.declines(rows)
    assert pace.rest == rest - 1
    assert not policy.rests(rows)  # what the model drafts is another matter
    assert policy.choose(rows, [[0.95, 0.95]]) == [0]  # as where another row of the batch looks up


def test_what_was_chosen_and_what_was_drafted_are_learnt_apart() -> None:
    """A draft without forwards need not be a look-up, and a look-up that was chosen may have been left for a draft."""

    def learnt(choose: bool, forwards: int) -> list[bool]:
        policy, rows = Renewal(), batch(1)
        (row,) = rows.rows
        paces = [policy._pace(row, known) for known in (False, True)]
        before = [pace._judged for pace in paces]
        policy.declines(rows)
        if choose:
            policy.choose(rows, [[0.9, 0.9]])
        draft, verdict = finished([2], [1], torch.full((1, 3), 0.9))
        policy.observe(rows, replace(draft, num_forwards=[forwards]), verdict)
        return [pace._judged != then for pace, then in zip(paces, before, strict=True)]

    assert learnt(choose=True, forwards=0) == [False, True]
    assert learnt(choose=True, forwards=2) == [True, False]
    assert learnt(choose=False, forwards=0) == [True, False]


def test_plain_steps_between_look_ups_count_as_well() -> None:
    """Three tokens for two steps pay; not where the nine plain steps around them take a tenth longer for it."""
    for slower, pays in ((1.0, True), (1.1, False)):
        policy, rows = Renewal(), batch(1)
        (row,) = rows.rows
        rows.costs = Timed(slower)
        pace = policy._pace(row, known=True)
        for _ in range(30):
            assert pays or pace._overall.pays or pace.rest
            pace.rest = 0
            rows.costs.last_s = 2.2
            pace.observe([0.9] * 2, 2, policy._prices(row, rows, 1))
            rows.costs.last_s = slower
            for _ in range(9):
                policy.observe(rows, *finished([0], [0]))
        assert pace._own.pays is pays
        rest = pace.rest = 3
        pace.begin()
        before = pace._own.tokens
        policy.observe(rows, *finished([0], [0]))
        assert pace._own.tokens == before, "a step of a rest says nothing of look-ups"
        assert pace.rest == rest - 1


def test_what_neighbours_do_not_time_alone_does_not_count() -> None:
    """Where several rows share a step its time is not one's own; a request that repeats has no clock at all."""
    for repeats in (False, True):
        policy, rows = Renewal(), batch(2)
        for row in rows.rows:
            row.request = replace(row.request, repeats=repeats)
        pace = policy._pace(rows.rows[0], known=True)
        before = pace._own.tokens
        policy.observe(rows, *finished([0, 0], [0, 0]))
        assert (pace._own.tokens != before) is repeats


class Timed(GivenCosts):
    """Costs under which a plain step by itself takes a second."""

    def __init__(self, last_s: float) -> None:
        super().__init__(0.1, {1: 1.0, 2: 2.2})
        self.last_s = last_s


def test_look_ups_that_are_missed_again_and_again_are_looked_for_ever_more_seldom() -> None:
    policy, rows = Renewal(), batch(1)
    drafted, verdict = finished([2], [1], torch.full((1, 3), 0.9))
    drafted = replace(drafted, num_forwards=[2])

    def asked(steps: int) -> list[int]:
        """Steps between two of those in which something was looked up."""
        gaps, since = [], 0
        for _ in range(steps):
            assert not policy.rests(rows)
            if policy.declines(rows):
                since += 1
            else:
                policy.choose(rows, [[0.3]])
                gaps.append(since)
                since = 0
            policy.observe(rows, drafted, verdict)
        return gaps

    assert asked(53) == [*[0] * 8, *range(9)]
    found, verdict_of_it = finished([2], [2], torch.full((1, 3), 0.9))
    policy.rests(rows)
    assert policy.declines(rows)
    policy._pace(rows.rows[0], known=True).rest = 0
    policy.rests(rows)
    assert not policy.declines(rows)
    policy.choose(rows, [[0.99, 0.99]])
    policy.observe(rows, replace(found, num_forwards=[0]), verdict_of_it)
    assert asked(9)[:9] == [0] * 9  # there is something to be found again
    assert max(asked(2000)) == 32
