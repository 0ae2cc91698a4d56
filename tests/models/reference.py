"""The cache and the mask again, in plain Python: a list of entries per row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from foretoken.models.cache import TensorCache
from foretoken.types import swap_remove

LAYERS, HEADS, DIM = 2, 3, 4


@dataclass
class ListCache:
    """Numbers per row: committed ones, then pending ones."""

    rows: list[list[float]]
    pending: list[list[float]] = field(default_factory=list)

    def write(self, entries: list[list[float]]) -> None:
        old = self.pending or [[] for _ in self.rows]
        self.pending = [before + new for before, new in zip(old, entries, strict=True)]

    def commit(self, kept: Sequence[Sequence[int]]) -> None:
        for row, held, nodes in zip(self.rows, self.pending, kept, strict=True):
            row.extend(held[node] for node in nodes)
        self.pending = []

    def extend(self, other: ListCache) -> None:
        self.rows.extend(list(row) for row in other.rows)

    def release(self, gone: list[int]) -> None:
        for to, source in swap_remove(len(self.rows), gone):
            self.rows[to] = self.rows[source]
        del self.rows[len(self.rows) - len(gone) :]


def spread(entries: Tensor) -> Tensor:
    """[B, N] -> [B, HEADS, N, DIM]: every head and dimension tells the entry and itself."""
    places = torch.arange(HEADS * DIM).reshape(HEADS, 1, DIM) / 100
    return entries[:, None, :, None] + places


def write(cache: TensorCache, entries: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Write numbers ([B, N] float) to every layer, and return the views each layer got."""
    known = cache.lengths[:, None] + cache.pending + torch.arange(entries.shape[1])
    cache.begin(known)
    seen = [cache.write(layer, spread(entries + layer), -spread(entries + layer)) for layer in range(LAYERS)]
    cache.end()
    return seen


def check(cache: TensorCache, expected: ListCache) -> None:
    """The committed entries of every layer and row are the expected ones."""
    assert cache.lengths.tolist() == [len(row) for row in expected.rows]
    for index, row in enumerate(expected.rows):
        for layer in range(LAYERS if row else 0):
            keys, values = cache.entries(layer, index)
            numbers = spread(torch.tensor([row]) + layer)[0]
            assert torch.equal(keys, numbers)
            assert torch.equal(values, -numbers)
