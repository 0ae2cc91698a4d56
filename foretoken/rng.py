"""Random numbers: one independent pair of streams per request, so a row never depends on its neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from foretoken.errors import GenerationError
from foretoken.types import Row


class Rng(Protocol):
    """The only source of randomness for drafters and acceptance rules.

    Tests replace it by one that walks through every outcome with its probability.
    """

    def coin(self, prob: Tensor, active: Tensor) -> Tensor:
        """Flip coins.

        Args:
            prob: [B, ...] float. Probability of True. 0 never comes up, 1 always does.
            active: [B, ...] bool. Inactive entries spend no randomness and come up False.

        Returns:
            [B, ...] bool.
        """
        ...

    def pick(self, probs: Tensor, active: Tensor) -> Tensor:
        """Draw one token per row.

        Args:
            probs: [B, V] float. A distribution per row; a token of probability 0 is never drawn.
            active: [B] bool. Inactive rows spend no randomness and give 0.

        Returns:
            [B] int64.
        """
        ...

    def peek(self, count: int) -> Tensor:
        """[B, count] float64, on the CPU. Numbers in [0, 1) that the next draws of each row will use; spends none."""
        ...

    def spend(self, counts: Sequence[int]) -> None:
        """Drop so many of them per row: they were used."""
        ...


RngFactory = Callable[[list[Row], str], Rng]


class Stream:
    """Uniform numbers in [0, 1) of one purpose of one request, fetched in blocks."""

    BLOCK = 64

    def __init__(self, seed: int, purpose: str) -> None:
        words = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, *purpose.encode()]
        self._generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))
        self._block: list[float] = []

    def next(self) -> float:
        """The next uniform number."""
        self._fill(1)
        return self._block.pop()

    def peek(self, count: int) -> list[float]:
        """The next uniform numbers, which stay the next ones."""
        self._fill(count)
        return self._block[: -count - 1 : -1]

    def _fill(self, count: int) -> None:
        while len(self._block) < count:
            self._block = self._generator.random(self.BLOCK).tolist()[::-1] + self._block


class SeededRng:
    """Reproducible randomness: stream (seed of the row's request, purpose)."""

    def __init__(self, rows: list[Row], purpose: str) -> None:
        self._rows = rows
        self._purpose = purpose

    def _stream(self, row: int) -> Stream:
        memory = self._rows[row].memory
        key = (SeededRng, self._purpose)
        if key not in memory:
            memory[key] = Stream(self._rows[row].request.seed, self._purpose)
        stream: Stream = memory[key]
        return stream

    def coin(self, prob: Tensor, active: Tensor) -> Tensor:
        wanted = active.reshape(len(active), -1).tolist()
        # An inactive entry gets a number that no probability exceeds.
        uniform = [[self._stream(b).next() if want else 2.0 for want in row] for b, row in enumerate(wanted)]
        drawn = torch.tensor(uniform, dtype=torch.float64).to(prob.device, non_blocking=True)
        return drawn.reshape(active.shape) < prob

    def pick(self, probs: Tensor, active: Tensor) -> Tensor:
        wanted = active.tolist()
        token = draw(probs, [self._stream(b).next() if want else 0.0 for b, want in enumerate(wanted)])
        return token if all(wanted) else token * active.to(token.device, non_blocking=True)

    def peek(self, count: int) -> Tensor:
        numbers = [self._stream(b).peek(count) for b in range(len(self._rows))]
        return torch.tensor(numbers, dtype=torch.float64).reshape(-1, count)

    def spend(self, counts: Sequence[int]) -> None:
        for b, count in enumerate(counts):
            for _ in range(count):
                self._stream(b).next()


def draw(probs: Tensor, uniforms: Sequence[float]) -> Tensor:
    """Turn uniform numbers into tokens; a token of probability 0 never comes up.

    Args:
        probs: [B, V] float. A distribution per row.
        uniforms: B numbers in [0, 1).

    Returns:
        [B] int64.
    """
    cumulative = probs.cumsum(-1, dtype=torch.float64)  # [B, V]
    totals = cumulative[:, -1].tolist()
    check_usable(totals)
    # Strictly below the total, and the first entry above the point.
    points = [[min(u * t, math.nextafter(t, 0))] for u, t in zip(uniforms, totals, strict=True)]
    point = torch.tensor(points, dtype=torch.float64).to(probs.device, non_blocking=True)
    return torch.searchsorted(cumulative, point, right=True).squeeze(-1)


def check_usable(mass: Sequence[float]) -> None:
    """Raise GenerationError where a model left nothing to choose from.

    Args:
        mass: what must be above zero: sums of probabilities, or the largest ones.
    """
    # One comparison each way also finds what is not a number.
    if not all(0 < one < math.inf for one in mass):
        raise GenerationError(
            "a model gave no usable probabilities (all zero, or not a number)",
            hint="try `--dtype float32`; a half-precision overflow is the usual cause",
        )
