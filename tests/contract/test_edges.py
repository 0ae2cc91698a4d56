"""The awkward moments, by hand: stop tokens in every place, nothing to draft, no room left, friends and strangers.

Both models are certain of what comes next, so every rule on chains must do the same at any temperature.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from foretoken.engine import Engine
from foretoken.registry import METHODS, find
from foretoken.request import Request, Sampling
from foretoken.types import FinishReason, Origin, Row, TokenEvent
from tests.contract.methods import Choice, Setup
from tests.contract.table import Table, TableModel, cycle_table

A, R, B = Origin.ACCEPTED, Origin.RECOVERED, Origin.BONUS
NEXT = cycle_table(4)  # 0 1 2 3 0 1 2 3 ...
OTHER = cycle_table(4, stride=2)  # always wrong
STOP_AT_3 = frozenset({3})


RULES = [Choice(find("accept", name)) for name in sorted(METHODS["accept"]) if find("accept", name).lossless]
CASES = [(rule, warmth) for rule in RULES for warmth in (0.0, 1.0) if not (warmth and rule.type.greedy_only)]

pytestmark = pytest.mark.parametrize(("rule", "warmth"), CASES, ids=str)


def engine(rule: Choice, k: int, target: TableModel, draft: Table = NEXT) -> Engine:
    chain = Choice(find("shape", "chain"))
    setup = Setup(Choice(find("draft", "model")), Choice(find("length", "fixed"), {"k": k}), chain, rule)
    return setup.engine(target, TableModel(draft))


def run(
    rule: Choice, warmth: float, request: Request, k: int, draft: Table = NEXT, context: int = 48
) -> tuple[Row, list[TokenEvent]]:
    one = engine(rule, k, TableModel(NEXT, context), draft)
    (row,) = one.start([replace(request, sampling=Sampling(temperature=warmth))])
    events = []
    while one.batch.rows:
        events += one.step()
    return row, events


def test_a_stop_token_inside_a_draft_ends_drafting_and_has_no_bonus(rule: Choice, warmth: float) -> None:
    row, events = run(rule, warmth, Request((0,), max_new_tokens=20, stop_token_ids=STOP_AT_3), k=6)
    assert [event.tokens for event in events] == [[1, 2, 3]]
    assert events[0].origins == [A, A, A]
    assert (row.counts.num_drafted, row.counts.num_draft_forwards, row.counts.num_cut) == (3, 3, 1)
    assert row.finish is FinishReason.STOP


def test_a_stop_token_at_once(rule: Choice, warmth: float) -> None:
    row, events = run(rule, warmth, Request((2,), max_new_tokens=20, stop_token_ids=STOP_AT_3), k=6)
    assert [(event.tokens, event.origins) for event in events] == [([3], [A])]
    assert (row.counts.num_drafted, row.counts.num_cut) == (1, 1)


def test_a_stop_token_as_recovered_token(rule: Choice, warmth: float) -> None:
    row, events = run(rule, warmth, Request((2,), max_new_tokens=20, stop_token_ids=STOP_AT_3), k=2, draft=OTHER)
    assert [(event.tokens, event.origins) for event in events] == [([3], [R])]
    assert (row.finish, row.counts.num_cut) == (FinishReason.STOP, 0)


def test_a_stop_token_as_bonus_token(rule: Choice, warmth: float) -> None:
    row, events = run(rule, warmth, Request((1,), max_new_tokens=20, stop_token_ids=STOP_AT_3), k=1)
    assert [(event.tokens, event.origins) for event in events] == [([2, 3], [A, B])]
    assert (row.finish, row.counts.num_cut) == (FinishReason.STOP, 0)


def test_a_stop_token_in_the_prompt_means_nothing(rule: Choice, warmth: float) -> None:
    row, _ = run(rule, warmth, Request((3, 3), max_new_tokens=20, stop_token_ids=STOP_AT_3), k=2)
    assert row.output == [0, 1, 2, 3]


def test_a_rejected_stop_token_ends_nothing(rule: Choice, warmth: float) -> None:
    """The draft says 3 after 1, and stops drafting there; the target says 2 and goes on."""
    row, events = run(rule, warmth, Request((1,), max_new_tokens=2, stop_token_ids=STOP_AT_3), k=4, draft=OTHER)
    assert row.output == [2, 3]
    assert events[0].origins == [R]
    assert row.counts.num_drafted == 1  # the second step has no room for a draft


def test_candidate_length_zero_is_plain_decoding(rule: Choice, warmth: float) -> None:
    row, events = run(rule, warmth, Request((0,), max_new_tokens=5), k=0)
    assert row.output == [1, 2, 3, 0, 1]
    assert [event.origins for event in events] == [[B]] * 5
    assert (row.counts.num_drafted, row.counts.num_draft_forwards, row.counts.num_tested) == (0, 0, 0)


def test_one_token_leaves_no_room_to_draft(rule: Choice, warmth: float) -> None:
    row, events = run(rule, warmth, Request((0,), max_new_tokens=1), k=6)
    assert [(event.tokens, event.origins, event.finish) for event in events] == [([1], [B], FinishReason.LENGTH)]
    assert row.counts.num_drafted == 0


def test_a_draft_leaves_room_for_the_token_after_it(rule: Choice, warmth: float) -> None:
    row, events = run(rule, warmth, Request((0,), max_new_tokens=4), k=9)
    assert [(event.tokens, event.origins) for event in events] == [([1, 2, 3, 0], [A, A, A, B])]
    assert row.counts.num_drafted == 3


def test_the_context_ends_inside_a_draft(rule: Choice, warmth: float) -> None:
    """A table model refuses any position beyond its context, so this also shows that none is ever asked for."""
    row, events = run(rule, warmth, Request((0, 1), max_new_tokens=99), k=9, context=6)
    assert [(event.tokens, event.origins) for event in events] == [([2, 3, 0, 1], [A, A, A, B])]
    assert row.finish is FinishReason.LENGTH
    assert len(row.tokens) == 6


def test_the_context_ends_with_the_next_token(rule: Choice, warmth: float) -> None:
    row, _ = run(rule, warmth, Request((0, 1, 2), max_new_tokens=99), k=9, context=4)
    assert (row.output, row.counts.num_drafted) == ([3], 0)


def test_a_friend_is_always_kept(rule: Choice, warmth: float) -> None:
    row, events = run(rule, warmth, Request((0,), max_new_tokens=12), k=3)
    assert [event.origins for event in events] == [[A, A, A, B]] * 3
    assert row.counts.num_accepted == row.counts.num_tested == 9


def test_a_stranger_is_never_kept(rule: Choice, warmth: float) -> None:
    row, events = run(rule, warmth, Request((0,), max_new_tokens=6), k=3, draft=OTHER)
    assert row.output == [1, 2, 3, 0, 1, 2]
    assert [event.origins for event in events] == [[R]] * 5 + [[B]]
    assert row.counts.num_accepted == 0


def test_a_row_that_may_not_draft_beside_one_that_may(rule: Choice, warmth: float) -> None:
    """One row has no room, one stops early, one goes on: depths differ in every step."""
    asked = [
        Request((0,), max_new_tokens=1),
        Request((0, 1), max_new_tokens=20, stop_token_ids=STOP_AT_3),
        Request((2, 3, 0), max_new_tokens=9),
    ]
    one = engine(rule, 4, TableModel(NEXT))
    rows = one.start([replace(request, sampling=Sampling(temperature=warmth)) for request in asked])
    events = one.step()
    assert [event.tokens for event in events] == [[1], [2, 3], [1, 2, 3, 0, 1]]
    assert [row.id for row in one.batch.rows] == [rows[2].id]
    one.step()
    assert rows[2].output == [1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert one.step() == []
