"""The key/value cache of the OpenVINO backend: blocks that paged attention reads and writes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import openvino as ov
import torch
from torch import Tensor

from foretoken.models.cache import commit_moves
from foretoken.models.openvino_graph import Layer
from foretoken.models.openvino_pages import BLOCK
from foretoken.types import swap_remove

WIDTHS = (1, 4, 6, 8, 16)  # tokens per row of a step, padded


_PAIR = np.arange(2)
_Read = tuple[Tensor, Tensor, Any]  # tokens and positions, [B, N] int64, and the mask, [B, N, P+N] bool array


class Reading(NamedTuple):
    """One forward, as paged attention wants it.

    Attributes:
        tokens: [B, R] int64 array. What is read.
        positions: [B, R] int64 array.
        width: N, tokens per row with padding: 1, 4, 6, 8, 16, 32, 48, ... where tokens see everything before them.
            OpenVINO spends milliseconds on a width it has not met and some time on every other one than the last, and
            reads four tokens as fast as two. None of the tokens sees the padding after them, and the next forward
            overwrites it.
        tree: [B, N, N] bool array, or None where each token sees everything before it.
        past: entries of each row that all its tokens see.
        cached: for OpenVINO, by name: keys and values; `blocks`, those of the rows, one row after the other; and
            `block_begins`, where each row's begin. The same object until something in it is another.
        longest: entries of the longest row, the new ones included.
    """

    tokens: Any
    positions: Any
    width: int
    tree: Any
    past: list[int]
    cached: dict[str, Any]
    longest: int


class PagedCache:
    """Keys and values of every layer in [blocks, heads, BLOCK, dim] tensors that grow by doubling.

    Each row has a table of blocks. Row b's committed entries are slots 0..lengths[b]-1 of its table and its pending
    ones follow, so a rollback only forgets, and a commit moves the accepted entries of a tree together (and moves
    nothing for a chain).

    A forward calls `begin`, lets the model write, then calls `end`. One that fails before leaves nothing behind.

    Args:
        layers: what each layer keeps.
        dtype: OpenVINO's type of keys and values.
        rows: empty rows to begin with.

    Attributes:
        tensors: keys and values of each layer, named `key.N` and `value.N`; others take their place when they grow.
    """

    def __init__(self, layers: list[Layer], dtype: Any, rows: int) -> None:
        self.lengths = torch.zeros(rows, dtype=torch.int64)
        self.pending = 0
        self.tensors: dict[str, Any] = {}
        self._layers, self._dtype = layers, dtype
        self._tables: list[list[int]] = [[] for _ in range(rows)]
        self._free: list[int] = []
        self._capacity = 0
        self._cached: dict[str, Any] | None = None
        # What was read since the last commit, for the rare mask that hides some of it.
        self._held: list[Callable[[], _Read]] = []
        self._next: _Read | None = None
        self._causal: Tensor | None = None  # the last mask that hid nothing

    def begin(self, tokens: Tensor, positions: Tensor, mask: Tensor, least: int = 1) -> Reading:
        """Make room for new entries (arguments as in `LanguageModel.forward`); chains are padded to `least` tokens.

        Paged attention shows all earlier entries to every new token. Where the mask hides pending ones, they are read
        again together with the new tokens.
        """
        past, width = self.pending, tokens.shape[1]
        seen = mask.numpy()
        self._next = tokens, positions, seen
        tree = None
        if mask is self._causal or (seen == _causal(width, past)).all():
            self._causal = mask  # chains come with the same one again and again
            width = padded(max(width, least))
        else:
            if not seen[:, :, :past].all():
                (tokens, positions, seen), past = self._all_pending(), 0
                width = tokens.shape[1]
            tree = seen[:, :, past:]
            if (tree & ~_causal(width)).any():
                raise ValueError("a token can only see tokens that come before it")
        counts = [length + past for length in self.lengths.tolist()]
        cached = self._reserve([count + width for count in counts])
        return Reading(tokens.numpy(), positions.numpy(), width, tree, counts, cached, max(counts, default=0) + width)

    def end(self) -> None:
        """The forward is done: its entries are pending."""
        assert self._next is not None
        read = self._next
        self.pending += read[0].shape[1]
        self._held.append(lambda: read)

    def begin_chain(self, tokens: Tensor, at: Tensor, count: int, least: int = 1) -> Reading:
        """Make room for so many new entries, of which only the first token is known (see `LanguageModel.chain`).

        The token before it is read as well where a row lacks its entry, or where `least` tokens are two.
        """
        places = at.tolist()
        missing = [place - length - self.pending for place, length in zip(places, self.lengths.tolist(), strict=True)]
        if any(more not in (0, not self.pending) for more in missing):
            raise ValueError("a chain begins where the cache ends, or one token behind that")
        width = max(1 + max(missing), least)
        past = [place + 1 - width for place in places]
        cached = self._reserve([place + count for place in places])
        positions = np.array(past)[:, None] + _PAIR[:width]
        return Reading(tokens.numpy()[:, -width:], positions, width, None, past, cached, max(past) + width)

    def end_chain(self, first: Tensor, others: Tensor, at: Tensor) -> None:
        """A chain is done: its first token, [B, 1], and the others read, [B, K-1], int64, are pending.

        Everything before them is in the cache.
        """
        past, count = self.pending, 1 + others.shape[1]
        if not past:
            self.lengths = at.clone()

        def read() -> _Read:
            seen = np.broadcast_to(_causal(count, past), (len(first), count, past + count))
            return torch.cat([first, others], 1), at[:, None] + torch.arange(count), seen

        self._held.append(read)
        self.pending += count

    def commit(self, kept: Sequence[Sequence[int]]) -> None:
        """Keep some pending entries, in order, and drop the rest (see `KVCache.commit`)."""
        if moves := commit_moves(kept):
            lengths = self.lengths.tolist()
            there = [self._place(b, lengths[b] + to) for b, to, _ in moves]
            here = [self._place(b, lengths[b] + node) for b, _, node in moves]
            (to_block, to_slot), (block, slot) = np.array(there).T, np.array(here).T
            for tensor in self.tensors.values():
                tensor.data[to_block, :, to_slot] = tensor.data[block, :, slot]
        self.lengths = self.lengths + torch.tensor([len(nodes) for nodes in kept])
        self.pending = 0
        self._held.clear()

    def extend(self, other: PagedCache) -> None:
        """Append the rows of another cache of the same model; neither may have pending entries."""
        if not len(self.lengths):
            self.tensors, self._tables, self._free = other.tensors, other._tables, other._free
            self._capacity = other._capacity
        else:
            there = [block for table in other._tables for block in table]
            here = [self._take() for _ in there]
            for name, tensor in self.tensors.items() if there else ():
                tensor.data[here] = other.tensors[name].data[there]
            moved = iter(here)
            self._tables += [[next(moved) for _ in table] for table in other._tables]
        self.lengths = torch.cat([self.lengths, other.lengths])
        self._cached = None

    def release(self, rows: Iterable[int]) -> None:
        """Forget rows; the others move as `swap_remove` says."""
        gone = set(rows)
        lengths, tables = self.lengths.clone(), self._tables
        for row in gone:
            self._free += tables[row]
        for to, source in swap_remove(len(lengths), gone):
            lengths[to], tables[to] = lengths[source], tables[source]
        left = len(lengths) - len(gone)
        self.lengths, self._tables, self._cached = lengths[:left], tables[:left], None

    def _all_pending(self) -> tuple[Tensor, Tensor, Any]:
        """Tokens, positions and masks of everything pending and to come, [B, P+N] and [B, P+N, P+N]."""
        assert self._next is not None
        parts = [*(read() for read in self._held), self._next]
        tokens, positions = (torch.cat([part[place].cpu() for part in parts], 1) for place in (0, 1))
        seen, at = np.zeros((*tokens.shape, tokens.shape[1]), np.bool_), 0
        for part in parts:
            new, known = part[2].shape[1:]
            seen[:, at : at + new, :known] = part[2]
            at += new
        return tokens, positions, seen

    def _place(self, row: int, slot: int) -> tuple[int, int]:
        return self._tables[row][slot // BLOCK], slot % BLOCK

    def _reserve(self, counts: list[int]) -> dict[str, Any]:
        """The rows' tables, one after the other, and where each begins, with room for so many entries per row."""
        for held, count in zip(self._tables, counts, strict=True):
            while len(held) * BLOCK < count:
                held.append(self._take())
                self._cached = None
        if self._cached is None:
            table = {
                "blocks": np.array([block for held in self._tables for block in held], np.int32),
                "block_begins": np.cumsum([0, *(len(held) for held in self._tables)], dtype=np.int32),
            }
            flat = {name: ov.Tensor(array, shared_memory=True) for name, array in table.items()}
            self._cached = self.tensors | flat
        return self._cached

    def _take(self) -> int:
        """An unused block."""
        if not self._free:
            old, self._capacity = self._capacity, max(8, 2 * self._capacity)
            for number, heads, key_dim, value_dim, _ in self._layers:
                for name, dim in ((f"key.{number}", key_dim), (f"value.{number}", value_dim)):
                    fresh = ov.Tensor(self._dtype, ov.Shape([self._capacity, heads, BLOCK, dim]))
                    fresh.data[old:] = 0  # what is masked is multiplied by zero, so it has to be a number
                    if old:
                        fresh.data[:old] = self.tensors[name].data
                    self.tensors[name] = fresh
            self._free = list(range(self._capacity - 1, old - 1, -1))
        return self._free.pop()


def padded(width: int) -> int:
    """How many tokens are read in place of so many: few widths, and not many more tokens."""
    most = WIDTHS[-1]
    return next((one for one in WIDTHS if one >= width), -(-width // most) * most)


@functools.lru_cache(256)
def _causal(width: int, past: int = 0) -> Any:
    """[N, P+N] bool array. Each token sees itself and everything before it."""
    return np.tri(width, past + width, past, dtype=np.bool_)
