"""Random numbers: one independent pair of streams per request, so a row never depends on its neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from foretoken.errors import GenerationError
from foretoken.host import real, to_host
from foretoken.race import Race, winners
from foretoken.types import Row


class Dice(Protocol):
    """Chance, as an acceptance rule sees it."""

    def coin(self, row: int, prob: float) -> bool:
        """Flip a coin for one row.

        Args:
            row: whose random number it takes.
            prob: of True. 0 never comes up, 1 always does.
        """
        ...

    def pick(self, probs: Tensor, active: Sequence[bool]) -> list[int]:
        """Draw one token per row.

        Args:
            probs: [B, V] float. A distribution per row; a token of probability 0 is never drawn.
            active: per row. Inactive rows spend no randomness and give 0.
        """
        ...

    def along(self, probs: Tensor, tokens: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Draw a token after each node of a chain, for as long as what is drawn is the chain's next token.

        Args:
            probs: [B, N, V] float. A distribution after each node.
            tokens: [B, N] int64. The chain of each row.
            sizes: per row. Its nodes; a row of none spends no randomness.

        Returns:
            [B, N] int64. Tokens; what comes after the first that is not the chain's means nothing.
            [B, N] float64. Above 0 and finite where there was something to draw from.
        """
        ...

    def race(self, probs: Tensor, tokens: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """As `along`, by the numbers that the drafter draws by."""
        ...

    def peek(self, count: int) -> Tensor:
        """[B, count] float64, on the CPU. Numbers in [0, 1) that the next draws of each row will use; spends none."""
        ...

    def spend(self, counts: Sequence[int]) -> None:
        """Drop so many of them per row: they were used."""
        ...


class Rng(Dice, Protocol):
    """The only source of randomness for drafters and acceptance rules.

    Tests replace it by one that walks through every outcome with its probability.
    """

    def guess(self, probs: Tensor, active: Sequence[bool], depth: int) -> list[int]:
        """As `pick`, for a drafter that foretells what the target will draw, by the same numbers.

        Args:
            probs: [B, V] float. A distribution per row.
            active: per row. The others give 0.
            depth: tokens of each row that are drafted already.
        """
        ...

    def numbers(self, vocab_size: int, count: int, depth: int) -> Tensor:
        """[B, count, V] float64, on the CPU. Those numbers, of the next places of each row (see `Race`).

        Args:
            vocab_size: V.
            count: places.
            depth: tokens of each row that are drafted already.
        """
        ...


LAST = math.nextafter(1.0, 0.0)  # what a rounded number below 1 may have been

RngFactory = Callable[[list[Row], str], Rng]


class Stream:
    """Uniform numbers in [0, 1) of one purpose of one request, fetched in blocks."""

    BLOCK = 64

    def __init__(self, seed: int, purpose: str) -> None:
        self._generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(words(seed, purpose))))
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


def words(seed: int, purpose: str) -> list[int]:
    """Whole numbers of 32 bits that start randomness of its own for each seed and purpose."""
    return [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, *purpose.encode()]


class SeededRng:
    """Reproducible randomness: stream (seed of the row's request, purpose), or a `Race` that purposes share."""

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

    def coin(self, row: int, prob: float) -> bool:
        return self._stream(row).next() < prob

    def pick(self, probs: Tensor, active: Sequence[bool]) -> list[int]:
        tokens = draw(probs, [self._stream(b).next() if want else 0.0 for b, want in enumerate(active)])
        return [token * want for token, want in zip(tokens, active, strict=True)]

    def along(self, probs: Tensor, tokens: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        drawn = [[[self._stream(b).next()] for _ in range(count)] for b, count in enumerate(sizes)]
        return land(probs, [[*row, *[[0.0]] * (probs.shape[1] - len(row))] for row in drawn])

    def race(self, probs: Tensor, tokens: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        return winners(probs, self.numbers(probs.shape[2], probs.shape[1], 0))

    def guess(self, probs: Tensor, active: Sequence[bool], depth: int) -> list[int]:
        said, most = to_host(*winners(probs, self.numbers(probs.shape[1], 1, depth)[:, 0]))
        check_usable([one for one, want in zip(most.tolist(), active, strict=True) if want])
        return [token * want for token, want in zip(said.tolist(), active, strict=True)]

    def numbers(self, vocab_size: int, count: int, depth: int) -> Tensor:
        places = []
        for row in self._rows:
            if Race not in row.memory:
                row.memory[Race] = Race(words(row.request.seed, "race"))
            places.append(row.memory[Race].numbers(vocab_size, count, len(row.output), depth))
        return torch.stack(places) if len(places) > 1 else places[0][None]

    def peek(self, count: int) -> Tensor:
        numbers = [self._stream(b).peek(count) for b in range(len(self._rows))]
        return real(numbers).reshape(-1, count)

    def spend(self, counts: Sequence[int]) -> None:
        for b, count in enumerate(counts):
            for _ in range(count):
                self._stream(b).next()


def draw(probs: Tensor, uniforms: Sequence[float]) -> list[int]:
    """Turn uniform numbers into tokens; a token of probability 0 never comes up.

    Args:
        probs: [B, V] float. A distribution per row.
        uniforms: B numbers in [0, 1).

    Raises:
        GenerationError: probabilities that are all zero, or no numbers.
    """
    tokens, mass = to_host(*land(probs, [[min(u, LAST)] for u in uniforms]))
    check_usable(mass.tolist())
    return list(tokens.tolist())


def land(probs: Tensor, uniforms: Any) -> tuple[Tensor, Tensor]:
    """Tokens that numbers below 1 fall on, and the sums of what those are drawn from.

    Args:
        probs: [..., V] float. What to draw from.
        uniforms: numbers, a tensor or lists, over the same axes; the last has one.

    Returns:
        [...] int64. Tokens.
        [...] float64. Sums.
    """
    cumulative = probs.cumsum(-1, dtype=torch.float64)
    mass = cumulative[..., -1:]
    share = (uniforms if isinstance(uniforms, Tensor) else real(uniforms)).to(probs.device, non_blocking=True)
    # The first entry above the point; a share below 1 leaves it below the sum, even when rounded.
    return torch.searchsorted(cumulative, mass * share, right=True).squeeze(-1), mass.squeeze(-1)


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
