"""Heuristic: two more after a full acceptance, one less otherwise, within bounds, and every row by itself."""

from __future__ import annotations

import pytest

from foretoken.errors import ConfigError
from foretoken.length.heuristic import Heuristic
from foretoken.types import Batch
from tests.length.by_hand import batch, finished, frontier


def length(policy: Heuristic, rows: Batch, row: int = 0) -> int:
    """The candidate length of a row's next step: the first depth that does not grow."""
    depth = 0
    while policy.grow(frontier([depth] * len(rows.rows)), rows)[row][0]:
        depth += 1
    return depth


def test_up_by_two_down_by_one() -> None:
    policy, rows = Heuristic(Heuristic.Config(start=3)), batch(1)
    lengths = [length(policy, rows)]
    for drafted, accepted in [(3, 3), (5, 5), (7, 6), (6, 0), (5, 5)]:
        policy.observe(rows, *finished([drafted], [accepted]))
        lengths.append(length(policy, rows))
    assert lengths == [3, 5, 7, 6, 5, 7]


def test_a_short_draft_that_was_all_accepted_counts_as_full() -> None:
    """Near the end of a request a draft is cut to the room there is."""
    policy, rows = Heuristic(Heuristic.Config(start=4)), batch(1)
    policy.observe(rows, *finished([1], [1]))
    assert length(policy, rows) == 6


def test_without_a_draft_nothing_changes() -> None:
    policy, rows = Heuristic(Heuristic.Config(start=4)), batch(1)
    policy.observe(rows, *finished([0], [0]))
    assert length(policy, rows) == 4


def test_it_stays_within_its_bounds() -> None:
    policy, rows = Heuristic(Heuristic.Config(start=3, least=2, most=6)), batch(2)
    for _ in range(4):
        drafted = [length(policy, rows, 0), length(policy, rows, 1)]
        policy.observe(rows, *finished(drafted, [drafted[0], 0]))
    assert [length(policy, rows, 0), length(policy, rows, 1)] == [6, 2]


def test_every_row_has_its_own_length() -> None:
    policy, rows = Heuristic(Heuristic.Config(start=3)), batch(3)
    policy.observe(rows, *finished([3, 3, 0], [3, 1, 0]))
    assert [length(policy, rows, row) for row in range(3)] == [5, 2, 3]
    rows.rows.reverse()  # rows move in the batch; what they learned moves along
    assert [length(policy, rows, row) for row in range(3)] == [3, 2, 5]


def test_two_policies_do_not_share_what_they_learned() -> None:
    one, other, rows = Heuristic(), Heuristic(), batch(1)
    one.observe(rows, *finished([5], [5]))
    assert [length(one, rows), length(other, rows)] == [7, 5]


@pytest.mark.parametrize("options", [{"least": 0}, {"start": 2, "least": 3}, {"start": 5, "most": 4}])
def test_bounds_in_disorder_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="cannot be"):
        Heuristic.Config(**options)
