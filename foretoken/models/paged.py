"""The key/value cache of the OpenVINO backend: blocks that paged attention reads and writes."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import openvino as ov
import torch
from torch import Tensor
from torch.nn.functional import pad

from foretoken.host import whole
from foretoken.models.base import Places, following
from foretoken.models.cache import commit_moves
from foretoken.models.openvino_graph import Layer
from foretoken.models.openvino_pages import BLOCK
from foretoken.types import swap_remove

WIDTHS = (1, 4, 6, 8, 16)  # tokens per row of a step, padded


class Reading(NamedTuple):
    """One forward, as paged attention wants it.

    Attributes:
        tokens: [B, R] int64 array. What is read.
        positions: [B, R] int64 array, or None where they follow what all tokens see.
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
        self.pending = 0
        self._lengths = [0] * rows
        self.tensors: dict[str, Any] = {}
        self._layers, self._dtype = layers, dtype
        self._tables: list[list[int]] = [[] for _ in range(rows)]
        self._free: list[int] = []
        self._capacity = 0
        self._cached: dict[str, Any] | None = None
        # What was read since the last commit, for the rare mask that hides some of it.
        self._held: list[tuple[Places | None, Sequence[Any]]] = []

    @property
    def lengths(self) -> Tensor:
        return whole(self._lengths)

    def begin(self, tokens: Tensor, places: Places | None = None, least: int = 1) -> Reading:
        """Make room for new entries (arguments as in `LanguageModel.forward`); chains are padded to `least` tokens.

        Paged attention shows all earlier entries to every new token. Where the mask hides pending ones, they are read
        again together with the new tokens.
        """
        past, width = self.pending, tokens.shape[1]
        tree = positions = None
        if places is not None:
            seen = places.mask.numpy()
            if (seen != _causal(width, past)).any():
                if not seen[:, :, :past].all():
                    (tokens, places), past = self._all_pending(places, tokens), 0
                    seen, width = places.mask.numpy(), tokens.shape[1]
                tree = seen[:, :, past:]
                if (tree & ~_causal(width)).any():
                    raise ValueError("a token can only see tokens that come before it")
            positions = places.positions.numpy()
        if tree is None:
            width = padded(max(width, least))
        counts = [length + past for length in self._lengths]
        cached = self._reserve([count + width for count in counts])
        return Reading(tokens.numpy(), positions, width, tree, counts, cached, max(counts, default=0) + width)

    def end(self, tokens: Tensor, places: Places | None) -> None:
        """The forward is done: its entries are pending."""
        self._hold(places, tokens.numpy())

    def begin_chain(self, tokens: Tensor, at: Tensor, count: int, least: int = 1) -> Reading:
        """Make room for so many new entries, of which only the first token is known (see `LanguageModel.chain`).

        The token before it is read as well where a row lacks its entry, or where `least` tokens are two.
        """
        places = at.tolist()
        missing = [place - length - self.pending for place, length in zip(places, self._lengths, strict=True)]
        if any(more not in (0, not self.pending) for more in missing):
            raise ValueError("a chain begins where the cache ends, or one token behind that")
        width = max(1 + max(missing), least)
        past = [place + 1 - width for place in places]
        cached = self._reserve([place + count for place in places])
        return Reading(tokens.numpy()[:, -width:], None, width, None, past, cached, max(past) + width)

    def end_chain(self, first: Tensor, drawn: Tensor, at: Tensor) -> None:
        """A chain is done: the second of the tokens it began with, and those drawn but the last, are pending.

        Everything before them is in the cache.

        Args:
            first: [B, 2] int64. As `LanguageModel.chain` takes them.
            drawn: [B, K] int64.
            at: [B] int64. As `LanguageModel.chain` takes it.
        """
        if not self.pending:
            self._lengths = at.tolist()
        self._hold(None, first.numpy()[:, 1:], drawn.numpy()[:, :-1])

    def commit(self, kept: Sequence[Sequence[int]]) -> None:
        """Keep some pending entries, in order, and drop the rest (see `KVCache.commit`)."""
        if moves := commit_moves(kept):
            there = [self._place(b, self._lengths[b] + to) for b, to, _ in moves]
            here = [self._place(b, self._lengths[b] + node) for b, _, node in moves]
            (to_block, to_slot), (block, slot) = np.array(there).T, np.array(here).T
            for tensor in self.tensors.values():
                tensor.data[to_block, :, to_slot] = tensor.data[block, :, slot]
        self._lengths = [length + len(nodes) for length, nodes in zip(self._lengths, kept, strict=True)]
        self.pending = 0
        self._held.clear()

    def extend(self, other: PagedCache) -> None:
        """Append the rows of another cache of the same model; neither may have pending entries."""
        if not self._lengths:
            self.tensors, self._tables, self._free = other.tensors, other._tables, other._free
            self._capacity = other._capacity
        else:
            there = [block for table in other._tables for block in table]
            here = [self._take() for _ in there]
            for name, tensor in self.tensors.items() if there else ():
                tensor.data[here] = other.tensors[name].data[there]
            moved = iter(here)
            self._tables += [[next(moved) for _ in table] for table in other._tables]
        self._lengths = self._lengths + other._lengths
        self._cached = None

    def release(self, rows: Iterable[int]) -> None:
        """Forget rows; the others move as `swap_remove` says."""
        gone = set(rows)
        for row in gone:
            self._free += self._tables[row]
        for to, source in swap_remove(len(self._lengths), gone):
            self._lengths[to], self._tables[to] = self._lengths[source], self._tables[source]
        left = len(self._lengths) - len(gone)
        self._lengths, self._tables, self._cached = self._lengths[:left], self._tables[:left], None

    def _hold(self, places: Places | None, *tokens: Any) -> None:
        """What was read, as arrays, is pending."""
        self._held.append((places, tokens))
        self.pending += sum(part.shape[1] for part in tokens)

    def _all_pending(self, places: Places, tokens: Tensor) -> tuple[Tensor, Places]:
        """Tokens of everything pending and to come, [B, P+N], and their places.

        Args:
            places: of those to come.
            tokens: [B, N] int64. Those to come.
        """
        held = [(where, torch.from_numpy(np.concatenate(parts, 1))) for where, parts in self._held]
        known, at = [], 0
        for where, read in (*held, (places, tokens)):
            known.append(where or following(self.lengths, at, read.shape[1]))
            at += read.shape[1]
        positions = torch.cat([one.positions for one in known], 1)
        mask = torch.cat([pad(one.mask, (0, at - one.mask.shape[2])) for one in known], 1)
        return torch.cat([*(read for _, read in held), tokens], 1), Places(positions, mask)

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


@functools.lru_cache(256)
def padded(width: int) -> int:
    """How many tokens are read in place of so many: few widths, and not many more tokens."""
    most = WIDTHS[-1]
    return next((one for one in WIDTHS if one >= width), -(-width // most) * most)


@functools.lru_cache(256)
def _causal(width: int, past: int = 0) -> Any:
    """[N, P+N] bool array. Each token sees itself and everything before it."""
    return np.tri(width, past + width, past, dtype=np.bool_)
