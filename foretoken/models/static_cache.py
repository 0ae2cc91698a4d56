"""The key/value cache of static shapes: storage that stays where it is, and is lent to one cache at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from foretoken.models.cache import commit_moves
from foretoken.types import swap_remove

LEAST = 256  # slots that attention looks at, and
CAPACITY = 1024  # slots of a row, at least
KEPT = 3  # storages that wait for their next cache


def bucket(size: int) -> int:
    """The power of two that so many are padded to."""
    return 1 << max(size - 1, 0).bit_length()


class Storage:
    """Keys and values of every layer in [rows, capacity+1, heads, dim] tensors that never move.

    The last slot of every row takes what padding writes, and nobody reads it.

    Args:
        layers: heads, and dimensions of keys and values, of each layer that keeps any.
        rows: rows it has room for.
        capacity: slots of each.
        device: where.
        dtype: of keys and values.

    Attributes:
        rows: as given.
        capacity: as given.
        layers: keys and values of each layer; None for one that keeps none.
        steps: what was captured on it, by size. A captured step knows addresses, so it dies with the storage.
    """

    def __init__(
        self,
        layers: list[tuple[int, int, int] | None],
        rows: int,
        capacity: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.rows, self.capacity = rows, capacity
        self.steps: dict[Any, Any] = {}
        with torch.inference_mode(False):  # or it could not be written to outside of that mode
            self.layers = [
                layer
                and tuple(
                    torch.zeros(rows, capacity + 1, layer[0], dim, dtype=dtype, device=device) for dim in layer[1:]
                )
                for layer in layers
            ]

    def writer(self, slots: Tensor, rows: int, span: int) -> Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]:
        """What takes the new keys and values of a layer ([B, heads, N, dim] each) and returns those to look at.

        Args:
            slots: [M] int64. Where each of the B*N new tokens goes, counted through all rows.
            rows: B.
            span: T, slots in view.
        """

        def write(layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
            held = self.layers[layer]
            assert held is not None
            for part, new in zip(held, (key, value), strict=True):
                part.flatten(0, 1).index_copy_(0, slots, new.transpose(1, 2).flatten(0, 1))
            keys, values = (part[:rows, :span].transpose(1, 2) for part in held)
            return keys, values

        return write

    def parts(self) -> list[Tensor]:
        """All keys and values."""
        return [part for held in self.layers if held is not None for part in held]


class Pool:
    """Storages of one model that no cache uses at present, kept for what was captured on them.

    Args:
        make: makes one of so many rows and slots.
    """

    def __init__(self, make: Callable[[int, int], Storage]) -> None:
        self._make = make
        self._free: list[Storage] = []

    def take(self, rows: int, slots: int) -> Storage:
        """The smallest one with room for so many rows and slots, all zero: what is masked has to be a number."""
        fit = [one for one in self._free if one.rows >= rows and one.capacity >= slots]
        if not fit:
            size = bucket(rows), max(bucket(slots), CAPACITY)
            try:
                return self._make(*size)
            except torch.OutOfMemoryError:
                self._free.clear()
                return self._make(*size)
        best = min(fit, key=lambda one: one.rows * one.capacity)
        self._free.remove(best)
        for part in best.parts():
            part.zero_()
        return best

    def give(self, storage: Storage) -> None:
        """Take one back."""
        self._free = [*self._free, storage][-KEPT:]


class StaticCache:
    """Keys and values of the rows in flight, in a storage of their own for as long as they fit.

    Row b's committed entries are slots 0..lengths[b]-1 and its pending ones follow, as in `TensorCache`; rows and slots
    that do not fit any more move to a larger storage.

    Args:
        pool: where storage comes from and goes to.
        rows: empty rows to begin with.
    """

    def __init__(self, pool: Pool, rows: int) -> None:
        self.lengths = torch.zeros(rows, dtype=torch.int64)
        self.pending = 0
        self._pool = pool
        self._storage: Storage | None = None
        self._positions: list[Tensor] = []  # of what is pending
        self._next: Tensor | None = None
        self._before: Tensor | None = None

    def __del__(self) -> None:
        if self._storage is not None:
            self._pool.give(self._storage)

    def begin(self, positions: Tensor, before: Tensor | None = None) -> tuple[Storage, Tensor]:
        """Make room for new entries. A forward that fails before `end` leaves nothing behind.

        Args:
            positions: [B, N] int64, on the CPU. Position of each new token in its sequence.
            before: [B] int64 or None, on the CPU. Entries that are written in front of those, and committed by `end`;
                only where nothing is pending.

        Returns:
            Where they go.
            [B, N] int64, on the CPU. Which slots they go to.
        """
        self._next, self._before = positions, before
        first = self.lengths + self.pending if before is None else self.lengths + before
        slots = first[:, None] + torch.arange(positions.shape[1])
        storage = self._room(len(slots), int(slots.max()) + 1)
        return storage, slots

    def known(self) -> Tensor:
        """[B, P+N] int64, on the CPU. Positions of the pending entries and the new ones."""
        assert self._next is not None, "a forward has begun"
        return torch.cat([*self._positions, self._next], 1)

    def end(self) -> None:
        """The forward is done: its entries are pending."""
        assert self._next is not None, "a forward has begun"
        self._positions.append(self._next)
        self.pending += self._next.shape[1]
        if self._before is not None:
            self.lengths = self.lengths + self._before

    def commit(self, kept: Sequence[Sequence[int]]) -> None:
        """Keep some pending entries, in order, and drop the rest (see `KVCache.commit`)."""
        if moves := commit_moves(kept):
            assert self._storage is not None
            lengths, wide = self.lengths.tolist(), self._storage.capacity + 1
            places = [(b * wide + lengths[b] + to, b * wide + lengths[b] + node) for b, to, node in moves]
            self._move(torch.tensor(places))
        self.lengths = self.lengths + torch.tensor([len(nodes) for nodes in kept])
        self.pending = 0
        self._positions.clear()

    def extend(self, other: StaticCache) -> None:
        """Append the rows of another cache of the same model; neither may have pending entries."""
        here, joining = len(self.lengths), len(other.lengths)
        lengths = torch.cat([self.lengths, other.lengths])
        if here == 0:
            self._storage, other._storage = other._storage, self._storage
        elif other._storage is not None:
            used = int(other.lengths.max())
            storage = self._room(here + joining, int(lengths.max()))
            for held, new in zip(storage.parts(), other._storage.parts(), strict=True):
                held[here : here + joining, :used] = new[:joining, :used]
        self.lengths = lengths

    def release(self, rows: Iterable[int]) -> None:
        """Forget rows; the others move as `swap_remove` says."""
        gone = set(rows)
        lengths = self.lengths.clone()
        for to, source in swap_remove(len(lengths), gone):
            length = int(lengths[source])
            # A row that never read anything may not have storage yet.
            for held in self._storage.parts() if self._storage and length else []:
                held[to, :length] = held[source, :length]
            lengths[to] = lengths[source]
        self.lengths = lengths[: len(lengths) - len(gone)]

    def _room(self, rows: int, slots: int) -> Storage:
        """A storage with room for so many rows and slots, and what was committed in it."""
        old = self._storage
        if old is not None and old.rows >= rows and old.capacity >= slots:
            return old
        new = self._pool.take(max(rows, old.rows if old else 0), max(slots, old.capacity if old else 0))
        if old is not None:
            used = int(self.lengths.max()) + self.pending
            for held, before in zip(new.parts(), old.parts(), strict=True):
                held[: len(self.lengths), :used] = before[: len(self.lengths), :used]
            self._pool.give(old)
        self._storage = new
        return new

    def _move(self, places: Tensor) -> None:
        """Copy entries all at once, so that none is overwritten before it was read.

        Args:
            places: [M, 2] int64. Slots, counted through all rows: to, from.
        """
        assert self._storage is not None
        parts = self._storage.parts()
        to, source = places.to(parts[0].device, non_blocking=True).T
        for held in parts:
            entries = held.flatten(0, 1)
            entries.index_copy_(0, to, entries[source])
