"""The key/value cache: preallocated rows, pending entries, and a commit that keeps an accepted path."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from foretoken.types import swap_remove


class TensorCache:
    """Keys and values of every layer in [rows, heads, capacity, dim] tensors that grow by doubling.

    Row b's committed entries are slots 0..lengths[b]-1 and its pending ones follow, so a slot number of a committed
    entry is also its position. Nothing is ever recomputed: a rollback only forgets, a commit moves the accepted
    entries of a tree together (and moves nothing for a chain).
    """

    def __init__(self, num_layers: int, rows: int, capacity: int = 256) -> None:
        self.lengths = torch.zeros(rows, dtype=torch.int64)
        self.pending = 0
        self._layers: list[tuple[Tensor, Tensor] | None] = [None] * num_layers
        self._capacity = capacity
        self._positions = torch.zeros(rows, 0, dtype=torch.int64)
        self._slots: Tensor | None = None
        self._start = 0
        self._end = 0

    def begin(self, positions: Tensor) -> tuple[int, Tensor]:
        """Make room for new entries.

        Args:
            positions: [B, N] int64. Position of each new token in its sequence.

        Returns:
            T, the number of slots that attention must look at.
            [B, P+N] int64. Positions of the pending entries and the new ones.
        """
        num_new = positions.shape[1]
        start = self.lengths + self.pending  # [B]
        longest = int(start.max())
        self._start, self._end = longest, longest + num_new
        self._positions = torch.cat([self._positions, positions], 1) if self.pending else positions
        ragged = len(start) > 1 and int(start.min()) != longest
        self._slots = start[:, None] + torch.arange(num_new) if ragged else None  # [B, N]
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
        keys, values = self._storage(layer, key, value)
        rows = len(self.lengths)
        if self._slots is None:
            keys[:rows, :, self._start : self._end] = key
            values[:rows, :, self._start : self._end] = value
        else:
            slots = self._slots.to(key.device)
            b = torch.arange(rows, device=key.device)[:, None]
            keys[b, :, slots] = key.transpose(1, 2)
            values[b, :, slots] = value.transpose(1, 2)
        return keys[:rows, :, : self._end], values[:rows, :, : self._end]

    def end(self) -> None:
        """The forward is done: its entries are pending."""
        self.pending = self._positions.shape[1]

    def _storage(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        held = self._layers[layer]
        if held is None or held[0].shape[2] < self._capacity or held[0].shape[0] < len(self.lengths):
            grown = []
            for part, like in enumerate((key, value)):
                rows = held[part].shape[0] if held else 0
                rows = rows if rows >= len(self.lengths) else max(len(self.lengths), 2 * rows)
                fresh = like.new_zeros(rows, like.shape[1], self._capacity, like.shape[3])
                if held is not None:
                    fresh[: held[part].shape[0], :, : held[part].shape[2]] = held[part]
                grown.append(fresh)
            held = (grown[0], grown[1])
            self._layers[layer] = held
        return held

    def commit(self, nodes: Tensor, counts: Tensor) -> None:
        """Keep some pending entries, in order, and drop the rest (see `KVCache.commit`)."""
        nodes, counts = nodes.cpu(), counts.cpu()
        width = nodes.shape[1]
        kept = torch.arange(width) < counts[:, None]  # [B, A]
        if not torch.equal(nodes * kept, torch.arange(width) * kept):
            b = torch.arange(len(self.lengths))[:, None].expand_as(nodes)[kept]
            source = (self.lengths[:, None] + nodes)[kept]
            target = (self.lengths[:, None] + torch.arange(width))[kept]
            for keys, values in self._held():
                keys[b, :, target] = keys[b, :, source]
                values[b, :, target] = values[b, :, source]
        self.lengths = self.lengths + counts
        self.pending = 0

    def extend(self, other: TensorCache) -> None:
        """Append the rows of another cache of the same model; neither may have pending entries."""
        here, joining = len(self.lengths), len(other.lengths)
        self.lengths = torch.cat([self.lengths, other.lengths])
        self._capacity = max(self._capacity, other._capacity)
        if here == 0:
            self._layers = other._layers
            return
        for layer, held in enumerate(other._layers):
            if held is not None:
                keys, values = self._storage(layer, *held)
                keys[here : here + joining, :, : held[0].shape[2]] = held[0][:joining]
                values[here : here + joining, :, : held[1].shape[2]] = held[1][:joining]

    def release(self, rows: Iterable[int]) -> None:
        """Forget rows; the others move as `swap_remove` says."""
        gone = list(rows)
        for to, source in swap_remove(len(self.lengths), gone):
            length = int(self.lengths[source])
            for keys, values in self._held():
                keys[to, :, :length] = keys[source, :, :length]
                values[to, :, :length] = values[source, :, :length]
            self.lengths[to] = self.lengths[source]
        self.lengths = self.lengths[: len(self.lengths) - len(gone)].clone()

    def entries(self, layer: int, row: int) -> tuple[Tensor, Tensor]:
        """One row's committed keys and values of one layer, [heads, length, dim] each."""
        held = self._layers[layer]
        assert held is not None, "nothing was read yet"
        length = int(self.lengths[row])
        return held[0][row, :, :length], held[1][row, :, :length]

    def _held(self) -> list[tuple[Tensor, Tensor]]:
        return [held for held in self._layers if held is not None]
