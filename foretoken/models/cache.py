"""The key/value cache: preallocated rows, pending entries, and a commit that keeps an accepted path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from foretoken.types import swap_remove


class TensorCache:
    """Keys and values of every layer in [rows, heads, capacity, dim] tensors that grow by doubling.

    Row b's committed entries are slots 0..lengths[b]-1 and its pending ones follow, so a slot number of a committed
    entry is also its position. Nothing is ever recomputed: a rollback only forgets, a commit moves the accepted
    entries of a tree together (and moves nothing for a chain).

    A forward calls `begin`, then `write` once per layer, then `end`. One that fails before `end` leaves nothing behind.
    """

    def __init__(self, num_layers: int, rows: int, capacity: int = 256) -> None:
        self.lengths = torch.zeros(rows, dtype=torch.int64)
        self.pending = 0
        self._layers: list[tuple[Tensor, Tensor] | None] = [None] * num_layers
        self._capacity = capacity
        self._positions = torch.zeros(rows, 0, dtype=torch.int64)
        self._slots: tuple[Tensor, Tensor] | None = None
        self._start = 0
        self._end = 0

    def begin(self, positions: Tensor) -> tuple[int, Tensor]:
        """Make room for new entries.

        Args:
            positions: [B, N] int64. Position of each new token in its sequence, on the device of the keys.

        Returns:
            T, the number of slots that attention must look at.
            [B, P+N] int64. Positions of the pending entries and the new ones.
        """
        new, lengths = positions.shape[1], self.lengths.tolist()
        self._start = max(lengths) + self.pending
        self._end = self._start + new
        self._positions = torch.cat([self._positions[:, : self.pending], positions], 1) if self.pending else positions
        self._slots = None
        if min(lengths) != max(lengths):
            slots = self.lengths[:, None] + self.pending + torch.arange(new)  # [B, N]
            rows = torch.arange(len(slots))[:, None]
            self._slots = rows.to(positions.device), slots.to(positions.device)
        while self._capacity < self._end:
            self._capacity *= 2
        return self._end, self._positions

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store one layer's new entries.

        Args:
            key: [B, heads, N, dim] float. Keys of the new tokens.
            value: [B, heads, N, dim] float. Their values.

        Returns:
            Views of all keys and values up to T, [B, heads, T, dim] each.
        """
        seen = []
        for held, new in zip(self._storage(layer, key, value), (key, value), strict=True):
            view = held[: len(self.lengths), :, : self._end]
            if self._slots is None:
                view[:, :, self._start :] = new
            else:
                rows, slots = self._slots
                view[rows, :, slots] = new.transpose(1, 2)
            seen.append(view)
        return seen[0], seen[1]

    def end(self) -> None:
        """The forward is done: its entries are pending."""
        self.pending = self._positions.shape[1]

    def _storage(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """One layer's tensors, with room for every row and for the capacity."""
        held = self._layers[layer]
        if held is None:
            shape = (len(self.lengths), self._capacity)
            held = _resized(key[:0, :, :0], shape), _resized(value[:0, :, :0], shape)
        elif held[0].shape[2] < self._capacity or held[0].shape[0] < len(self.lengths):
            rows = held[0].shape[0]
            rows = rows if rows >= len(self.lengths) else max(len(self.lengths), 2 * rows)
            held = _resized(held[0], (rows, self._capacity)), _resized(held[1], (rows, self._capacity))
        self._layers[layer] = held
        return held

    def commit(self, kept: Sequence[Sequence[int]]) -> None:
        """Keep some pending entries, in order, and drop the rest (see `KVCache.commit`)."""
        if moves := commit_moves(kept):
            b, to, node = torch.tensor(moves).T
            slots = torch.stack([b, self.lengths[b] + to, self.lengths[b] + node])
            for held in self._held():
                b, to, node = slots = slots.to(held.device)
                held[b, :, to] = held[b, :, node]
        self.lengths = self.lengths + torch.tensor([len(nodes) for nodes in kept])
        self.pending = 0

    def extend(self, other: TensorCache) -> None:
        """Append the rows of another cache of the same model; neither may have pending entries."""
        here, joining = len(self.lengths), len(other.lengths)
        self.lengths = torch.cat([self.lengths, other.lengths])
        self._capacity = max(self._capacity, other._capacity)
        if here == 0:
            self._layers = other._layers
            return
        used = int(other.lengths.max()) if joining else 0
        for layer, theirs in enumerate(other._layers):
            if theirs is not None:
                for held, new in zip(self._storage(layer, *theirs), theirs, strict=True):
                    held[here : here + joining, :, :used] = new[:joining, :, :used]

    def release(self, rows: Iterable[int]) -> None:
        """Forget rows; the others move as `swap_remove` says."""
        gone = set(rows)
        lengths = self.lengths.clone()
        for to, source in swap_remove(len(lengths), gone):
            length = int(lengths[source])
            # A row that never read anything may not have storage yet.
            for held in self._held() if length else []:
                held[to, :, :length] = held[source, :, :length]
            lengths[to] = lengths[source]
        self.lengths = lengths[: len(lengths) - len(gone)]

    def entries(self, layer: int, row: int) -> tuple[Tensor, Tensor]:
        """One row's committed keys and values of one layer, [heads, length, dim] each."""
        held = self._layers[layer]
        assert held is not None, "nothing was read yet"
        length = int(self.lengths[row])
        return held[0][row, :, :length], held[1][row, :, :length]

    def layers(self) -> list[tuple[int, int, int] | None]:
        """Heads, and dimensions of keys and values, of each layer that has kept any."""
        return [held and (held[0].shape[1], held[0].shape[3], held[1].shape[3]) for held in self._layers]

    def _held(self) -> list[Tensor]:
        return [part for layer in self._layers if layer is not None for part in layer]


def commit_moves(kept: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """Which pending entries a commit has to move together: (row, to, from), places among the row's pending entries.

    Args:
        kept: as `KVCache.commit` takes it.
    """
    return [(b, to, node) for b, nodes in enumerate(kept) for to, node in enumerate(nodes) if to != node]


def _resized(held: Tensor, shape: tuple[int, int]) -> Tensor:
    """A zeroed tensor of that many rows and slots, holding what `held` holds."""
    fresh = held.new_zeros(shape[0], held.shape[1], shape[1], held.shape[3])
    fresh[: held.shape[0], :, : held.shape[2]] = held
    return fresh
