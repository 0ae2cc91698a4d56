"""A bandit picks each step's candidate length by the speed it expects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt

import torch

from foretoken.errors import ConfigError, did_you_mean
from foretoken.length.base import Growth, LengthPolicy, Plan, check_length, check_probability, probable, within
from foretoken.prices import Prices, prices
from foretoken.types import Batch, Draft, Frontier, Row, Verdict

PACE = 16.0  # of exp3's learning rate: lengths worth choosing between differ by a small part of the range of losses


class Bandit(LengthPolicy):
    """Per request, learn which candidate length, 0 included, gives the most tokens per second.

    Tokens are what was accepted, seconds what a step of that length is expected to take, so only acceptance has to be
    learned. One step tells about many lengths: after a rejection at a, length j would have yielded min(a, j) + 1
    tokens; after k of k were accepted, so much is known of lengths up to k alone. Averaging what is known would
    underrate long lengths, since they would be told of rejections only; both algorithms correct for it.

    Reference: Hou et al. 2025, BanditSpec, https://arxiv.org/abs/2505.15141; side observations as in Mannor and
    Shamir 2011, https://arxiv.org/abs/1106.2436.
    """

    uses_clock = True

    looks = False

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options.

        Attributes:
            algorithm: ucb (optimistic about what it has not seen) or exp3 (random, assumes nothing about the text).
            most: the longest length to choose from.
            explore: scale of ucb's optimism; 0 trusts what it has seen.
            memory: share of what was learned that is kept from step to step, since texts change; 1 keeps all.
        """

        algorithm: str = "ucb"
        most: int = 8
        explore: float = 0.02
        memory: float = 0.98

        def __post_init__(self) -> None:
            check_length("most", self.most)
            check_probability("memory", self.memory)
            if self.algorithm not in ALGORITHMS:
                hint = did_you_mean(self.algorithm, ALGORITHMS)
                raise ConfigError(f"there is no bandit algorithm `{self.algorithm}`", hint=hint)
            if self.explore < 0:
                raise ConfigError(f"explore cannot be {self.explore}", hint="0 does not explore")

    def __init__(self, config: Config | None = None) -> None:
        self._config = config or self.Config()

    def grow(self, frontier: Frontier, batch: Batch) -> Growth:
        arms = [self._arms(row) for row in batch.rows]
        if any(one.chosen_at != len(row.tokens) for one, row in zip(arms, batch.rows, strict=True)):
            self._choose(arms, batch, [any(may) for may in frontier.active])
        return within(frontier, [one.chosen for one in arms])

    def plan(self, batch: Batch, depth: int, least: int = 1) -> Plan:
        return Plan(max(self._arms(row).chosen for row in batch.rows) - depth)

    def choose(self, batch: Batch, known: Sequence[Sequence[float]]) -> list[int]:
        return probable(known)  # its lengths are those of drafts that cost something

    def _arms(self, row: Row) -> Arms:
        if self not in row.memory:
            row.memory[self] = ALGORITHMS[self._config.algorithm](self._config)
        arms: Arms = row.memory[self]
        return arms

    def _choose(self, arms: list[Arms], batch: Batch, active: list[bool]) -> None:
        """Choose the lengths of a step, which all rows begin together; a row that may not draft spends no chance."""
        none = [1.0, *[0.0] * self._config.most]
        chances = [
            one.chances(step_seconds(prices(row, batch, len(arms)), self._config.most)) if may else none
            for one, row, may in zip(arms, batch.rows, active, strict=True)
        ]
        lengths = [max(range(len(none)), key=one.__getitem__) for one in chances]
        undecided = [max(one) < 1 for one in chances]
        if any(undecided):
            # Not the stream that accepts: a length must not tell what will be kept.
            drawn = batch.draft_rng.pick(torch.tensor(chances, dtype=torch.float64), undecided)
            lengths = [d if open_ else k for d, k, open_ in zip(drawn, lengths, undecided, strict=True)]
        for one, row, length, may in zip(arms, batch.rows, lengths, active, strict=True):
            one.chosen, one.chosen_at, one.playing = length, len(row.tokens), may

    def observe(self, batch: Batch, draft: Draft, verdict: Verdict) -> None:
        for row, size, accepted in zip(batch.rows, draft.sizes, verdict.counts, strict=True):
            arms = self._arms(row)
            if arms.playing:
                arms.learn(size - 1, accepted)
                arms.playing = False


def step_seconds(price: Prices, most: int) -> list[float]:
    """Seconds of a step by candidate length, if all rows draft as many."""
    return [price.step_s(k) for k in range(most + 1)]


class Arms(ABC):
    """One request's lengths.

    Attributes:
        chosen: length of the current step.
        chosen_at: tokens of the row when it was chosen.
        playing: whether what came of it is still to be learned.
    """

    def __init__(self, config: Bandit.Config) -> None:
        self.config = config
        self.chosen, self.chosen_at, self.playing = 0, -1, False
        self._weight = 0.0

    def _count(self) -> float:
        """Steps so far, this one included, old ones weighing less."""
        self._weight = self.config.memory * self._weight + 1
        return self._weight

    @abstractmethod
    def chances(self, seconds: Sequence[float]) -> list[float]:
        """With what probability to choose each length, given the seconds of a step by length."""

    @abstractmethod
    def learn(self, drafted: int, accepted: int) -> None:
        """What came of a step."""


class Ucb(Arms):
    """Choose by an upper confidence bound on tokens per second.

    The tokens of a length follow from the chances h_i of position i to be accepted once those before it were:
    1 + sum over j <= k of h_1 ... h_j. Each h_i is estimated from the steps that tested position i, whatever their
    length, which is the Kaplan-Meier estimator and so unbiased where a draft ended too early to tell. The bound puts
    each h_i at its own upper limit min(1, mean + sqrt(explore ln t / tests)), in the scale of a probability. Old tests
    and steps fade, as in discounted ucb (Garivier and Moulines 2008, https://arxiv.org/abs/0805.3415).

    Reference: combinatorial bandits with probabilistically triggered arms, Chen et al. 2014,
    https://arxiv.org/abs/1407.8339.
    """

    def __init__(self, config: Bandit.Config) -> None:
        super().__init__(config)
        self._tested, self._accepted = [0.0] * config.most, [0.0] * config.most

    def chances(self, seconds: Sequence[float]) -> list[float]:
        width = self.config.explore * log(self._count())
        best, chosen = 1 / seconds[0], 0
        tokens = reached = 1.0
        for i, (tested, accepted) in enumerate(zip(self._tested, self._accepted, strict=True)):
            reached *= min(1.0, accepted / tested + sqrt(width / tested)) if tested else 1.0
            tokens += reached
            if tokens / seconds[i + 1] > best:
                best, chosen = tokens / seconds[i + 1], i + 1
        return [float(k == chosen) for k in range(len(seconds))]

    def learn(self, drafted: int, accepted: int) -> None:
        self._tested = [self.config.memory * tests for tests in self._tested]
        self._accepted = [self.config.memory * tests for tests in self._accepted]
        for i in range(min(accepted + 1, drafted)):
            self._tested[i] += 1
            self._accepted[i] += i < accepted


class Exp3(Arms):
    """Choose at random, a length the likelier the less it was estimated to lose.

    A length's loss is 1 - its speed as a share of the best that any length could do. Length j's outcome is seen if the
    chosen length is at least min(a + 1, j), so its loss is divided by the probability of that, plus half of
    sqrt(ln(lengths) / t): the implicit exploration of exp3-ix.

    Reference: Kocak et al. 2014, Efficient learning by implicit exploration in bandit problems with side observations,
    https://proceedings.neurips.cc/paper/2014/hash/25b2822c2f5a3230abfadd476e8b04c9-Abstract.html.
    """

    def __init__(self, config: Bandit.Config) -> None:
        super().__init__(config)
        self._losses = [0.0] * (config.most + 1)
        self._rate = 0.0
        self._chances: list[float] = []
        self._seconds: Sequence[float] = ()

    def chances(self, seconds: Sequence[float]) -> list[float]:
        self._rate = sqrt(log(len(seconds)) / self._count())
        least = min(self._losses)
        weights = [exp(PACE * self._rate * (least - loss)) for loss in self._losses]
        self._chances, self._seconds = [weight / sum(weights) for weight in weights], seconds
        return self._chances

    def learn(self, drafted: int, accepted: int) -> None:
        best = max((k + 1) / cost for k, cost in enumerate(self._seconds))
        for j, cost in enumerate(self._seconds):
            self._losses[j] *= self.config.memory
            if j <= drafted or accepted < drafted:
                seen = sum(self._chances[min(accepted + 1, j) :])
                self._losses[j] += (1 - (min(accepted, j) + 1) / cost / best) / (seen + self._rate / 2)


ALGORITHMS: dict[str, Callable[[Bandit.Config], Arms]] = {"ucb": Ucb, "exp3": Exp3}
