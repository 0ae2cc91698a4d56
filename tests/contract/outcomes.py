"""Every way the dice can fall, each with its probability.

A random computation is run again and again. Every run follows a script: choices already made are repeated, the first
new choice takes its first possible outcome and leaves a script for each of the others. When no script is left, all
outcomes were seen, and their probabilities add up to one. Many scripts run side by side, as rows of one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
GRID = 4  # equally likely numbers that a uniform one is taken for


class Script:
    """One way the dice fall.

    Attributes:
        prob: probability of the choices so far.
        others: scripts of the outcomes not taken here.
        peeked: uniform numbers that were looked at and not spent.
    """

    def __init__(self, given: Sequence[int] = ()) -> None:
        self._given = given
        self._taken: list[int] = []
        self.prob = 1.0
        self.others: list[tuple[int, ...]] = []
        self.peeked: list[float] = []

    def choose(self, weights: Sequence[float]) -> int:
        """Take one of the outcomes with positive probability."""
        step = len(self._taken)
        if step < len(self._given):
            chosen = self._given[step]
        else:
            chosen, *rest = (i for i, weight in enumerate(weights) if weight > 0)
            self.others += [(*self._taken, other) for other in rest]
        assert weights[chosen] > 0, "the computation did not repeat itself: it depends on more than its random numbers"
        self._taken.append(chosen)
        self.prob *= weights[chosen]
        return chosen


class EveryOutcome:
    """An `Rng` whose numbers come from scripts. One script serves all purposes of a row.

    It also checks what it is asked: coins are probabilities, and distributions are distributions.

    Args:
        script_of: script of the row at an index of the batch.
        rows: how many rows there are.
    """

    def __init__(self, script_of: Callable[[int], Script], rows: Callable[[], int] = lambda: 0) -> None:
        self._script_of, self._rows = script_of, rows

    def coin(self, row: int, prob: float) -> bool:
        assert 0 <= prob <= 1, f"not a probability: {prob}"
        return self._script_of(row).choose([1 - prob, prob]) == 1

    def pick(self, probs: Tensor, active: Sequence[bool]) -> list[int]:
        asked = probs[torch.tensor(active)]
        assert bool((asked >= 0).all()), "a negative probability"
        assert bool(((asked.sum(-1) - 1).abs() < 1e-6).all()), "probabilities that do not add up to one"
        rows = zip(probs.tolist(), active, strict=True)
        return [self._draw(self._script_of(b), row) if want else 0 for b, (row, want) in enumerate(rows)]

    def guess(self, probs: Tensor, active: Sequence[bool], depth: int) -> list[int]:
        return self.pick(probs, active)  # what a drafter foretells decides nothing

    def numbers(self, vocab_size: int, count: int, depth: int) -> Tensor:
        """Of races in which a token that was drawn by nobody wins."""
        won = [
            self._script_of(b).choose([1 / vocab_size] * vocab_size) for b in range(self._rows()) for _ in range(count)
        ]
        numbers = torch.full((self._rows() * count, vocab_size), 1e9, dtype=torch.float64)
        return numbers.scatter_(1, torch.tensor(won)[:, None], 1e-9).reshape(-1, count, vocab_size)

    def along(self, probs: Tensor, tokens: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        drawn = torch.full(probs.shape[:2], -1)
        for b, size in enumerate(sizes):
            for node in range(size):
                drawn[b, node] = self._draw(self._script_of(b), probs[b, node].tolist())
                if node + 1 < size and drawn[b, node] != tokens[b, node + 1]:
                    break
        return drawn, probs.sum(-1)

    def race(self, probs: Tensor, tokens: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        return self.along(probs, tokens, sizes)  # whatever was foretold, each token has its probability

    def _draw(self, script: Script, probs: list[float]) -> int:
        whole = sum(probs)  # off by a rounding error in float32, which production takes out as well
        return script.choose([p / whole for p in probs])

    def peek(self, count: int) -> Tensor:
        """Numbers in the middle of GRID equal parts: only models whose probabilities are such parts are drawn from."""
        numbers = []
        for b in range(self._rows()):
            script = self._script_of(b)
            while len(script.peeked) < count:
                script.peeked.append((script.choose([1 / GRID] * GRID) + 0.5) / GRID)
            numbers.append(script.peeked[:count])
        return torch.tensor(numbers, dtype=torch.float64)

    def spend(self, counts: Sequence[int]) -> None:
        for b, count in enumerate(counts):
            del self._script_of(b).peeked[:count]


def every_outcome(
    play: Callable[[list[Script]], list[T]], width: int = 256, rounding: float = 1e-9
) -> Iterator[tuple[T, float]]:
    """All results of a random computation.

    Args:
        play: runs the computation once per script, side by side, and returns one result each.
        width: scripts per run.
        rounding: how far from one the probabilities may add up to.

    Yields:
        A result and the probability of one way to get there; the same result may come again.
    """
    waiting: list[tuple[int, ...]] = [()]
    total = 0.0
    while waiting:
        scripts = [Script(given) for given in waiting[-width:]]
        del waiting[-width:]
        for script, result in zip(scripts, play(scripts), strict=True):
            total += script.prob
            waiting += script.others
            yield result, script.prob
    assert abs(total - 1) < rounding, f"the outcomes add up to {total}"


def law_of(play: Callable[[list[Script]], list[T]], width: int = 256, rounding: float = 1e-9) -> dict[T, float]:
    """Probability of each result of a random computation."""
    law: dict[T, float] = {}
    for result, prob in every_outcome(play, width, rounding):
        law[result] = law.get(result, 0.0) + prob
    return law


def distance(one: dict[T, float], other: dict[T, float]) -> float:
    """Total variation distance of two laws."""
    return sum(abs(one.get(key, 0.0) - other.get(key, 0.0)) for key in one.keys() | other.keys()) / 2
