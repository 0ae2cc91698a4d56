"""Whom a request believes: itself, or all requests like it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from foretoken.length.belief import BEGINNING, Belief, Experts, guess
from foretoken.length.renewal import Renewal
from foretoken.request import Sampling
from foretoken.types import Row
from tests.length.by_hand import batch


def taught(kept: bool, times: int = 60) -> Belief:
    belief = guess(1.0)
    for _ in range(times):
        belief.observe(0.0, kept)
    return belief


def request(temperature: float, repeats: bool = False) -> Row:
    (row,) = batch(1).rows
    row.request = replace(row.request, sampling=Sampling(temperature=temperature), repeats=repeats)
    return row


def test_others_are_believed_until_they_foretell_less() -> None:
    own, common = guess(1.0), taught(kept=True)
    experts = Experts(own, common)
    assert all(experts.observe(0.0, True) is common for _ in range(10)), "it knows less itself"
    believed = [experts.observe(0.0, False) for _ in range(30)]
    assert believed[0] is common
    assert believed[-1] is own, "a text of its own kind"
    changes = sum(a is not b for a, b in pairwise(believed))
    assert changes == 1


def test_others_learn_from_how_a_request_begins() -> None:
    common = taught(kept=True)
    experts, before = Experts(guess(1.0), common), common(0.0)
    for _ in range(BEGINNING):
        experts.observe(0.0, False)
    after = common(0.0)
    assert after < before - 0.1
    for _ in range(50):
        experts.observe(0.0, False)
    assert common(0.0) == after


@pytest.mark.parametrize("sure", [0, 1])
def test_what_was_held_to_be_impossible_may_come(sure: int) -> None:
    own, common = guess(0.0), guess(0.0)
    (own, common)[sure].shift = 800.0
    experts = Experts(own, common)
    believed = [experts.observe(-2.0, False) for _ in range(BEGINNING + 1)]
    assert believed[0] is (own, common)[1 - sure], "the one that held it to be possible"


def test_who_is_alone_believes_itself() -> None:
    own, same = guess(0.5), guess(0.5)
    experts = Experts(own, None)
    for outcome in (True, False, True, True):
        assert experts.observe(1.5, outcome) is own
        same.observe(1.5, outcome)
    assert (own.shift, own.scale) == (same.shift, same.scale)


def test_what_came_is_as_probable_as_it_was_held_to_be() -> None:
    belief = guess(0.0)
    for score, outcome in ((2.0, True), (2.0, False), (-1.0, True)):
        before = belief(score)
        assert belief.observe(score, outcome) == pytest.approx(before if outcome else 1 - before)


def test_requests_of_one_temperature_learn_together_but_for_those_that_repeat() -> None:
    policy, fresh = Renewal(), guess(1.0)
    first = policy._pace(request(1.0))
    for _ in range(9):
        first._learn([0.5, 0.5], {}, 0)
    assert policy._pace(request(1.0)).belief(0.0) < fresh(0.0) - 0.1
    assert policy._pace(request(1.0, repeats=True)).belief(0.0) == fresh(0.0)
    assert policy._pace(request(0.5)).belief(0.0) == guess(0.5)(0.0)
