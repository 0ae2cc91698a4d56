"""Batches, frontiers and finished steps made by hand, for policies to look at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foretoken.costs import GivenCosts
from foretoken.models.cache import TensorCache
from foretoken.request import Request
from foretoken.rng import SeededRng
from foretoken.tokenizer import TextPieces
from foretoken.types import Batch, Draft, Drawn, Frontier, Row, Verdict


def batch(count: int) -> Batch:
    """Fresh rows."""
    rows = [Row(i, Request((0,), repeats=False), TextPieces(lambda ids: ""), 99, [0]) for i in range(count)]
    draft, accept = SeededRng(rows, "draft"), SeededRng(rows, "accept")
    return Batch(rows, TensorCache(1, count), draft, accept, torch.device("cpu"), GivenCosts(0.1))


def frontier(depths: Sequence[int], probs: Sequence[float] | None = None) -> Frontier:
    """One leaf per row."""
    depth = torch.tensor(depths)[:, None]
    prob = torch.tensor(probs or [1.0] * len(depths), dtype=torch.float64)[:, None]
    return Frontier(depth, prob, None, None, torch.ones_like(depth, dtype=torch.bool))


def finished(drafted: Sequence[int], accepted: Sequence[int], probs: Tensor | None = None) -> tuple[Draft, Verdict]:
    """A step of chains, of which each row drafted and accepted so many tokens."""
    sizes, counts = torch.tensor(drafted) + 1, torch.tensor(accepted)
    steps = torch.arange(int(sizes.max()))
    tokens = torch.zeros(len(sizes), len(steps), dtype=torch.int64)
    parents = (steps - 1).clamp_min(0) * (steps < sizes[:, None])
    path = torch.where(steps[1:] <= counts[:, None], steps[1:], -1)
    tested = torch.minimum(counts + 1, sizes - 1)
    draft = Draft(tokens, parents, sizes, None, Drawn.POINT, probs, sizes - 1)
    return draft, Verdict(path, counts, tested, torch.zeros_like(counts), counts < sizes - 1)
