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
        policy.observe(rows, replace(draft, num_forwards=torch.tensor([forwards])), verdict)
        return [pace._judged != then for pace, then in zip(paces, before, strict=True)]

    assert learnt(choose=True, forwards=0) == [False, True]
    assert learnt(choose=True, forwards=2) == [True, False]
    assert learnt(choose=False, forwards=0) == [True, False]
