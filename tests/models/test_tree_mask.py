"""Attention masks against the definition, slot by slot."""

import random

import pytest
import torch

from foretoken.models.hf import TreeMask

HIDDEN = torch.finfo(torch.float32).min


def by_definition(
    lengths: list[int], positions: list[list[int]], mask: list[list[list[bool]]], total: int, window: int | None
) -> list[list[list[bool]]]:
    """Which slots each new token of each row sees."""
    seen = []
    for length, places, allowed in zip(lengths, positions, mask, strict=True):
        own = places[len(places) - len(allowed) :]
        row = []
        for at, sees in zip(own, allowed, strict=True):
            slots = []
            for slot in range(total):
                pending = slot - length
                there = pending < 0 or (pending < len(sees) and sees[pending])
                place = slot if pending < 0 else places[pending] if pending < len(places) else 0
                slots.append(there and (window is None or at - place < window))
            row.append(slots)
        seen.append(row)
    return seen


@pytest.mark.parametrize("seed", range(60))
def test_every_slot(seed: int) -> None:
    rng = random.Random(seed)
    rows, new, earlier = rng.randrange(1, 4), rng.randrange(1, 5), rng.randrange(0, 4)
    lengths = [rng.randrange(0, 7)] * rows if rng.random() < 0.4 else [rng.randrange(0, 7) for _ in range(rows)]
    width = earlier + new
    positions = [[length + rng.randrange(0, node + 1) for node in range(width)] for length in lengths]
    mask = [
        [
            [node == earlier + i or (node < earlier + i and rng.random() < 0.6) for node in range(width)]
            for i in range(new)
        ]
        for _ in lengths
    ]
    total = max(lengths) + width
    tree = TreeMask(torch.tensor(lengths), torch.tensor(positions), torch.tensor(mask), total, torch.float32)
    for window in (None, 1, 3, total, total + 9):
        for groups in (1, 2):
            expected = torch.tensor(by_definition(lengths, positions, mask, total, window))
            added = tree.additive(window, groups)
            if added is None:
                assert bool(expected.all())
            else:
                assert added.shape == (rows, 1, groups * new, total)
                assert torch.equal(added[:, 0], torch.where(expected, 0.0, HIDDEN).repeat(1, groups, 1))
    assert tree.windows == {1, 3, total, total + 9}


def test_a_single_token_of_even_rows_needs_no_mask() -> None:
    tree = TreeMask(
        torch.tensor([4, 4]), torch.tensor([[4], [4]]), torch.ones(2, 1, 1, dtype=torch.bool), 5, torch.half
    )
    assert tree.additive(None, 2) is None
    assert tree.additive(5, 2) is None
    assert tree.additive(4, 2) is not None
    assert tree.dense().shape == (2, 1, 1, 5)


def test_masks_are_shared_by_layers() -> None:
    tree = TreeMask(
        torch.tensor([4]), torch.tensor([[4, 5]]), torch.ones(1, 2, 2, dtype=torch.bool).tril(), 6, torch.half
    )
    assert tree.additive(3, 2) is tree.additive(3, 2)
    assert tree.additive(None, 2) is tree.additive(100, 2)
