"""The tensor cache, by hand and against lists under random operations."""

import random

import pytest
import torch

from foretoken.models.cache import TensorCache

from .reference import LAYERS, ListCache, check, spread, write


def filled(*lengths: int, capacity: int = 4) -> tuple[TensorCache, ListCache]:
    """A cache whose row b holds 100b, 100b+1, ..."""
    cache = TensorCache(LAYERS, len(lengths), capacity)
    rows = [[100.0 * row + at for at in range(length)] for row, length in enumerate(lengths)]
    width = max(lengths)
    write(cache, torch.tensor([row + [-1.0] * (width - len(row)) for row in rows]))
    cache.commit(list(map(range, lengths)))
    expected = ListCache(rows)
    check(cache, expected)
    return cache, expected


def test_a_new_cache_is_empty() -> None:
    cache = TensorCache(LAYERS, 3)
    assert cache.lengths.tolist() == [0, 0, 0]
    assert cache.pending == 0


def test_commit_keeps_a_branching_path_per_row() -> None:
    cache, _ = filled(2, 4)
    write(cache, torch.tensor([[10.0, 11, 12, 13], [20, 21, 22, 23]]))
    cache.commit([[0, 2, 3], [1]])
    check(cache, ListCache([[0, 1, 10, 12, 13], [100, 101, 102, 103, 21]]))


def test_commit_moves_down_even_where_source_and_target_overlap() -> None:
    cache, _ = filled(1)
    write(cache, torch.tensor([[10.0, 11, 12, 13, 14]]))
    cache.commit([[1, 2, 3, 4]])
    check(cache, ListCache([[0, 11, 12, 13, 14]]))


def test_commit_of_nothing_is_a_rollback() -> None:
    cache, expected = filled(2, 3)
    write(cache, torch.tensor([[10.0, 11], [20, 21]]))
    cache.commit([[], []])
    check(cache, expected)
    assert cache.pending == 0
    write(cache, torch.tensor([[30.0], [40]]))
    cache.commit([[0], [0]])
    check(cache, ListCache([[0, 1, 30], [100, 101, 102, 40]]))


def test_pending_entries_of_several_forwards_are_counted_together() -> None:
    cache, _ = filled(1, 3)
    write(cache, torch.tensor([[10.0, 11], [20, 21]]))
    write(cache, torch.tensor([[12.0], [22]]))
    assert cache.pending == 3
    cache.commit([[0, 2], [1, 2]])
    check(cache, ListCache([[0, 10, 12], [100, 101, 102, 21, 22]]))


def test_write_returns_everything_up_to_the_longest_row() -> None:
    cache, _ = filled(1, 3)
    for keys, values in write(cache, torch.tensor([[10.0, 11], [20, 21]])):
        assert keys.shape[2] == values.shape[2] == 5
    keys, values = write(cache, torch.tensor([[12.0], [22]]))[0]
    assert torch.equal(keys[0, :, :4], spread(torch.tensor([[0.0, 10, 11, 12]]))[0])
    assert torch.equal(values[1], -spread(torch.tensor([[100.0, 101, 102, 20, 21, 22]]))[0])


def test_a_forward_that_fails_half_way_leaves_no_trace() -> None:
    cache, expected = filled(2, 3)
    cache.begin(torch.zeros(2, 1, dtype=torch.int64))
    cache.write(0, spread(torch.ones(2, 1)), spread(torch.ones(2, 1)))
    check(cache, expected)
    write(cache, torch.tensor([[10.0], [20]]))
    assert cache.pending == 1


def test_even_rows_are_appended_in_place_until_the_capacity_doubles() -> None:
    cache, _ = filled(3)  # capacity 4
    first = write(cache, torch.tensor([[10.0]]))[0][0]
    cache.commit([[0]])
    grown = write(cache, torch.tensor([[11.0]]))[0][0]  # capacity 8
    assert grown.data_ptr() != first.data_ptr()
    cache.commit([[0]])
    for number in (12.0, 13, 14):
        seen = write(cache, torch.tensor([[number]]))[0][0]
        assert seen.data_ptr() == grown.data_ptr()
        cache.commit([[0]])
    check(cache, ListCache([[0, 1, 2, 10, 11, 12, 13, 14]]))


def test_joining_rows_move_those_present_only_when_the_rows_double() -> None:
    cache, expected = filled(2)
    places = set()
    for _ in range(8):
        joining, theirs = filled(3)
        cache.extend(joining)
        expected.extend(theirs)
        check(cache, expected)
        places.add(cache.entries(0, 0)[0].data_ptr())
    assert len(places) <= 5  # room for 1, 2, 4, 8 and 16 rows


def test_release_moves_the_last_rows_into_the_gaps() -> None:
    cache, expected = filled(2, 3, 4, 5, 6)
    cache.release([1, 3])
    expected.release([1, 3])
    check(cache, expected)
    assert [row[0] for row in expected.rows] == [0, 400, 200]


def test_rows_that_never_read_anything_join_and_leave() -> None:
    cache, expected = filled(2)
    cache.extend(TensorCache(LAYERS, 2))
    expected.extend(ListCache([[], []]))
    check(cache, expected)
    cache.release([0])
    expected.release([0])
    check(cache, expected)
    cache.extend(filled(3)[0])
    write(cache, torch.tensor([[1.0], [2], [3]]))
    cache.commit([[0], [], [0]])
    check(cache, ListCache([[1], [], [0, 1, 2, 3]]))


def test_an_empty_cache_takes_over_what_joins() -> None:
    cache = TensorCache(LAYERS, 0)
    joining, expected = filled(2, 5)
    cache.extend(joining)
    check(cache, expected)
    cache.release([0, 1])
    assert len(cache.lengths) == 0
    joining, expected = filled(1)
    cache.extend(joining)
    check(cache, expected)


@pytest.mark.parametrize("seed", range(20))
def test_random_operations_match_lists(seed: int) -> None:
    rng = random.Random(seed)
    number = iter(range(1, 10**6))
    cache, expected = TensorCache(LAYERS, 0, capacity=2), ListCache([])
    for _ in range(60):
        rows = len(expected.rows)
        action = rng.choice(["join", "write", "write", "commit", "commit", "release"])
        if action == "join" and not expected.pending and rows < 6:
            lengths = [rng.randrange(0, 7) for _ in range(rng.randrange(1, 4))]
            joining, theirs = TensorCache(LAYERS, len(lengths), capacity=2), ListCache([[] for _ in lengths])
            if width := max(lengths):
                entries = [[float(next(number)) for _ in range(width)] for _ in lengths]
                write(joining, torch.tensor(entries))
                theirs.write(entries)
                joining.commit(list(map(range, lengths)))
                theirs.commit(list(map(range, lengths)))
            cache.extend(joining)
            expected.extend(theirs)
        elif action == "write" and rows:
            width = rng.randrange(1, 4)
            entries = [[float(next(number)) for _ in range(width)] for _ in range(rows)]
            write(cache, torch.tensor(entries))
            expected.write(entries)
        elif action == "commit" and expected.pending:
            paths = [sorted(rng.sample(range(cache.pending), rng.randrange(cache.pending + 1))) for _ in range(rows)]
            cache.commit(paths)
            expected.commit(paths)
        elif action == "release" and rows and not expected.pending:
            gone = rng.sample(range(rows), rng.randrange(1, rows + 1))
            cache.release(gone)
            expected.release(gone)
        check(cache, expected)
