"""Batches, frontiers and finished steps made by hand, for policies to look at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foretoken.accept.base import chain_verdict
from foretoken.costs import GivenCosts
from foretoken.length.base import single
from foretoken.models.cache import TensorCache
from foretoken.request import Request
from foretoken.rng import SeededRng
from foretoken.tokenizer import TextPieces
from foretoken.types import Batch, Draft, Drawn, Frontier, Row, Verdict, chained


def batch(count: int) -> Batch:
    """Fresh rows."""
    rows = [Row(i, Request((0,), repeats=False), TextPieces(lambda ids: ""), 99, [0]) for i in range(count)]
    draft, accept = SeededRng(rows, "draft"), SeededRng(rows, "accept")
    return Batch(rows, TensorCache(1, count), draft, accept, torch.device("cpu"), GivenCosts(0.1))


def frontier(depths: Sequence[int], probs: Sequence[float] | None = None) -> Frontier:
    """One leaf per row."""
    return Frontier(single(depths), single(probs or [1.0] * len(depths)), single([True] * len(depths)))


def finished(drafted: Sequence[int], accepted: Sequence[int], probs: Tensor | None = None) -> tuple[Draft, Verdict]:
    """A step of chains, of which each row drafted and accepted so many tokens, with probabilities of the nodes."""
    sizes = [count + 1 for count in drafted]
    parents = chained(*sizes)
    tokens = torch.zeros_like(parents)
    draft = Draft(tokens, parents, sizes, None, Drawn.POINT, None if probs is None else probs.tolist(), drafted)
    return draft, chain_verdict(list(drafted), list(accepted), [0] * len(sizes))
