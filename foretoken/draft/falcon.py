"""A small network on the target's hidden states drafts several tokens per forward."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from foretoken.costs import Costs, ScaledCosts
from foretoken.draft.base import ChainDrafter
from foretoken.errors import ConfigError
from foretoken.length.base import Trained
from foretoken.models.cache import TensorCache
from foretoken.models.falcon import FalconHead
from foretoken.models.hf import TreeMask
from foretoken.types import Batch, Draft, Row, Scores, Verdict


class Falcon(ChainDrafter):
    """A small network says the target's next k states at once from all before, then from those it said the k after.

    The k tokens of a block are drawn from laws that do not see each other's choice; the next block sees them all. The
    network reads the target's states of everything committed, with the token chosen at each, into keys and values of
    its own. Its last block is read again in every step, since what speaks are the newest k pairs, wherever the last
    step ended. A text's first step drafts if its prompt has k + 1 tokens or more.

    Reference: Gao et al. 2024, Falcon, https://arxiv.org/abs/2412.12639. Cost per step: a forward of the network per k
    drafted tokens. The paper drafts trees; here chains.
    """

    trained: ClassVar[type[Trained]] = FalconHead
    reads_target: ClassVar[bool] = True

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options.

        Attributes:
            file: what `foretoken train falcon` wrote for the target.
        """

        file: str | None = None

    def __init__(self, config: Config | None = None, net: FalconHead | None = None) -> None:
        if net is None:
            raise ConfigError("the drafter `falcon` needs a trained head", hint="give it as `falcon:FILE`")
        self._net, self._size = net, net.shape.block
        self._cache = net.new_cache(0)
        self._reading: Reading | None = None

    def priced(self, costs: Costs) -> Costs:
        return ScaledCosts(costs, block=self._size)

    def forwards(self, depth: int) -> int:
        return 1 if depth % self._size == 1 % self._size else 0

    def start(self, rows: list[Row], hidden: list[Tensor | None]) -> None:
        for row, states in zip(rows, hidden, strict=True):
            row.memory[self] = self._net.output[:0] if states is None else states.to(self._net.output)
        reading = Reading(self._net, self._net.new_cache(len(rows)), rows, [row.memory[self] for row in rows])
        self._settle(rows, reading)
        self._cache.extend(reading.cache)

    def release(self, rows: Iterable[int]) -> None:
        self._cache.release(rows)

    def limits(self, batch: Batch) -> list[int]:
        return [row.room if len(row.memory[self]) >= self._size else 0 for row in batch.rows]

    def score(self, batch: Batch, tokens: list[Tensor]) -> Scores:
        depth, size = len(tokens) - 1, self._size
        if depth == 0:
            self._reading = Reading(self._net, self._cache, batch.rows, [row.memory[self] for row in batch.rows])
        assert self._reading is not None, "a draft begins at its root"
        if depth % size == 0:
            if depth:
                self._reading.go_on(torch.stack(tokens[-size:], 1))
            self._logits = self._net.logits(self._reading.speak())
        return Scores(self._logits[:, depth % size, None], None)

    def observe(self, batch: Batch, draft: Draft, verdict: Verdict, scores: Scores) -> None:
        if self._reading is not None:
            self._settle(batch.rows, self._reading)
            self._reading = None
        assert scores.hidden is not None, "every backend hands out hidden states"
        for b, (row, path) in enumerate(zip(batch.rows, verdict.path, strict=True)):
            new = scores.hidden[b, [0, *path]]
            row.memory[self] = torch.cat([row.memory[self], new.to(self._net.output)])

    def _settle(self, rows: list[Row], reading: Reading) -> None:
        """Keep what was read of all known pairs but the last block, and forget the rest."""
        counts = (reading.sizes - self._size).clamp_min(0).tolist()
        for row, count in zip(rows, counts, strict=True):
            row.memory[self] = row.memory[self][count:]
        reading.cache.commit(list(map(range, counts)))


class Reading:
    """What the network reads in one draft: first the unread pairs, then block by block those it has said itself.

    Args:
        net: the network.
        cache: of the rows; what is read here stays pending.
        rows: the rows.
        unread: per row [n, H] float, the target's states of its unread pairs, whose tokens are the row's newest.

    Attributes:
        sizes: [B] int64, on the CPU. Unread pairs per row.
    """

    def __init__(self, net: FalconHead, cache: TensorCache, rows: list[Row], unread: list[Tensor]) -> None:
        self._net, self.cache = net, cache
        self.sizes = torch.tensor([len(one) for one in unread])
        width = max(*self.sizes.tolist(), net.shape.block)
        states = net.output.new_zeros(len(rows), width, net.shape.hidden_size)
        tokens = torch.zeros(len(rows), width, dtype=torch.int64)
        for b, (row, one) in enumerate(zip(rows, unread, strict=True)):
            states[b, : len(one)] = one
            tokens[b, : len(one)] = torch.tensor(row.tokens[len(row.tokens) - len(one) :])
        self._seen = torch.arange(width) < self.sizes.clamp_min(net.shape.block)[:, None]  # [B, P] of what is pending
        self._end = cache.lengths
        heard = self._read(states, tokens.to(states.device))
        self._end = cache.lengths + self.sizes
        newest = (self.sizes - net.shape.block).clamp_min(0)[:, None] + torch.arange(net.shape.block)
        self._heard = heard[torch.arange(len(rows))[:, None], newest]  # [B, K, M] of the block that speaks

    def go_on(self, tokens: Tensor) -> None:
        """Read the tokens ([B, K] int64) that were drawn where the last block spoke."""
        self._seen = torch.cat([self._seen, torch.ones(tokens.shape, dtype=torch.bool)], 1)
        self._heard = self._read(self._states, tokens)
        self._end = self._end + tokens.shape[1]

    def speak(self) -> Tensor:
        """States that follow the last block ([B, K, H] float)."""
        size = self._net.shape.block
        positions = (self._end[:, None] - size + torch.arange(size)).clamp_min(0)
        keys, values = self._kept
        mask = self._seen[:, None].expand(-1, size, -1)
        tree = TreeMask(self.cache.lengths, self._places, mask, keys.shape[2], keys.dtype)
        self._states = self._net.speak(self._heard, positions.to(keys.device), keys, values, tree.dense())
        return self._states

    def _read(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Read pairs that follow all those before ([B, N, M] float), and keep their keys and values."""
        heard = self._net.read(states, tokens)
        positions = (self._end[:, None] + torch.arange(tokens.shape[1])).to(states.device)
        _, self._places = self.cache.begin(positions)
        self._kept = self.cache.write(0, *self._net.keys(heard, positions))
        self.cache.end()
        return heard
