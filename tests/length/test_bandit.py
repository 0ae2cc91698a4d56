"""Bandits: estimates from censored outcomes by hand, and the length they settle on."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from foretoken.costs import GivenCosts
from foretoken.errors import ConfigError
from foretoken.length.bandit import PACE, Arms, Bandit, Exp3, Ucb, step_seconds
from foretoken.prices import Prices
from foretoken.request import Request
from foretoken.types import Batch
from tests.length import by_hand

ALGORITHMS = ("ucb", "exp3")


def config(**options: object) -> Bandit.Config:
    return Bandit.Config(**options)  # type: ignore[arg-type]


def lengths(policy: Bandit, batch: Batch) -> list[int]:
    """Candidates of each row in this step."""
    found = [0] * len(batch.rows)
    for depth in range(20):
        more = policy.grow(by_hand.frontier([depth] * len(found)), batch)
        found = [depth + 1 if grows else length for (grows,), length in zip(more, found, strict=True)]
    return found


def step(policy: Bandit, batch: Batch, accepted: list[int]) -> list[int]:
    """A whole step, in which each row would accept so many; returns the lengths chosen."""
    chosen = lengths(policy, batch)
    counts = [min(a, k) for a, k in zip(accepted, chosen, strict=True)]
    policy.observe(batch, *by_hand.finished(chosen, counts))
    for row, count in zip(batch.rows, counts, strict=True):
        row.tokens += [0] * (count + 1)
    return chosen


def chosen(arms: Ucb, seconds: list[float]) -> int:
    return arms.chances(seconds).index(1.0)


def test_the_first_choice_of_ucb_is_the_fastest_if_all_were_accepted() -> None:
    batch = by_hand.batch(1)
    assert lengths(Bandit(config(most=5)), batch) == [5]
    dear = replace(by_hand.batch(1), costs=GivenCosts(1.5))
    assert lengths(Bandit(config(most=5)), dear) == [0]


def test_seconds_of_a_step_are_those_of_all_rows() -> None:
    assert step_seconds(Prices(GivenCosts(0.25, {1: 1.0, 9: 3.0}), 3), 2) == [1.5, 0.25 + 2.25, 0.5 + 3.0]


def test_ucb_tests_each_position_when_it_is_reached_and_no_later_one() -> None:
    arms = Ucb(config(most=4, memory=1.0))
    for drafted, accepted in ((4, 1), (2, 2), (0, 0), (3, 0)):
        arms.learn(drafted, accepted)
    assert (arms._tested, arms._accepted) == ([3, 2, 0, 0], [2, 1, 0, 0])


def test_ucb_index_by_hand() -> None:
    """After (4 drafted, 1 accepted) and no optimism: 1 + 1 tokens from length 1 on, so length 1 it is."""
    arms = Ucb(config(most=4, explore=0.0, memory=1.0))
    seconds = step_seconds(Prices(GivenCosts(0.5)), 4)
    assert chosen(arms, seconds) == 4
    arms.learn(4, 1)
    assert chosen(arms, seconds) == 1
    arms.learn(1, 0)  # now 1.5 tokens in 1.5 seconds, no better than none
    assert chosen(arms, seconds) == 0
    arms.config = config(most=4, explore=1.0)  # h_1 <= min(1, .5 + sqrt(ln 4 / 2)) = 1, h_2 likewise, the rest untested
    assert chosen(arms, seconds) == 4


def test_old_steps_fade() -> None:
    arms = Ucb(config(most=2, memory=0.5))
    for accepted in (2, 2, 0):
        arms.learn(2, accepted)
    assert (arms._tested, arms._accepted) == ([1.75, 0.75], [0.75, 0.75])
    assert [arms._count() for _ in range(3)] == [1.0, 1.5, 1.75]


def test_a_long_length_is_not_underrated_by_being_told_of_rejections_only() -> None:
    """Every other step is accepted whole. From lengths 1 alone, position 1 is rated at one half, not at zero."""
    arms = Ucb(config(most=8, memory=1.0))
    for accepted in (0, 1) * 10:
        arms.learn(1, accepted)
    assert arms._accepted[0] / arms._tested[0] == 0.5
    assert arms._tested[1:] == [0] * 7


def test_exp3_estimates_of_losses_are_unbiased() -> None:
    """Without implicit exploration, the expectation over the chosen length is the loss itself, for every outcome."""
    chances, seconds = [0.1, 0.2, 0.3, 0.4], [1.0, 1.5, 2.0, 2.5]
    best = max((k + 1) / s for k, s in enumerate(seconds))
    for outcome in range(5):
        expected = [0.0] * 4
        for drafted, chance in enumerate(chances):
            arms = Exp3(config(most=3))
            arms._chances, arms._seconds = chances, seconds
            arms.learn(drafted, min(outcome, drafted))
            expected = [e + chance * loss for e, loss in zip(expected, arms._losses, strict=True)]
        losses = [1 - (min(outcome, j) + 1) / s / best for j, s in enumerate(seconds)]
        assert expected == pytest.approx(losses), outcome


def test_exp3_chances_by_hand() -> None:
    arms = Exp3(config(most=1, memory=1.0))
    assert arms.chances([1.0, 1.5]) == [0.5, 0.5]
    arms.learn(1, 0)
    rate = math.sqrt(math.log(2))
    losses = [(1 - 0.75) / (1 + rate / 2), (1 - 0.5) / (0.5 + rate / 2)]  # the best is 2 tokens in 1.5 seconds
    assert arms._losses == pytest.approx(losses)
    odds = math.exp(PACE * math.sqrt(math.log(2) / 2) * (losses[0] - losses[1]))
    assert arms.chances([1.0, 1.5]) == pytest.approx([1 / (1 + odds), odds / (1 + odds)])


def rate(k: int, chance: float, seconds: list[float]) -> float:
    """Expected tokens per second of a length if every candidate is accepted with the same chance."""
    return sum(chance**i for i in range(k + 1)) / seconds[k]


def play(arms: Arms, chance: float, seconds: list[float], steps: int) -> list[float]:
    """Regret per step: share of the best length's speed lost, acceptance being independent."""
    rng, best = random.Random(5), max(rate(k, chance, seconds) for k in range(9))
    regret = []
    for _ in range(steps):
        (chosen,) = rng.choices(range(9), arms.chances(seconds))
        accepted = next((i for i in range(chosen) if rng.random() >= chance), chosen)
        arms.learn(chosen, accepted)
        regret.append(1 - rate(chosen, chance, seconds) / best)
    return regret


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("chance", [0.05, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("cost", [0.05, 0.3])
def test_it_settles_near_the_best_fixed_length(algorithm: str, chance: float, cost: float) -> None:
    arms = {"ucb": Ucb, "exp3": Exp3}[algorithm](config(algorithm=algorithm))
    regret = play(arms, chance, step_seconds(Prices(GivenCosts(cost)), 8), 1500)
    assert sum(regret[-500:]) / 500 < 0.15


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_useless_draft_is_left_alone_and_tried_again(algorithm: str) -> None:
    policy, batch = Bandit(config(algorithm=algorithm)), replace(by_hand.batch(1), costs=GivenCosts(0.3))
    chosen = [step(policy, batch, [0])[0] for _ in range(300)]
    assert sum(chosen[100:]) / 200 < 0.8
    chosen = [step(policy, batch, [99])[0] for _ in range(300)]
    assert sum(chosen[-100:]) / 100 > 6


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_row_never_depends_on_its_neighbours(algorithm: str) -> None:
    policy, accepted = Bandit(config(algorithm=algorithm)), [3, 0, 8]
    together = by_hand.batch(3)
    for b, row in enumerate(together.rows):
        row.request = Request((0,), seed=b)
    found = [step(policy, together, accepted) for _ in range(30)]
    for b, count in enumerate(accepted):
        alone = by_hand.batch(1)
        alone.rows[0].request = Request((0,), seed=b)
        assert [step(policy, alone, [count])[0] for _ in range(30)] == [lengths[b] for lengths in found]


def test_a_length_is_chosen_once_per_step() -> None:
    policy, batch = Bandit(config(algorithm="exp3")), by_hand.batch(1)
    assert {tuple(lengths(policy, batch)) for _ in range(10)} == {tuple(lengths(policy, batch))}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_row_that_may_not_draft_neither_spends_chance_nor_learns(algorithm: str) -> None:
    policy, batch = Bandit(config(algorithm=algorithm)), by_hand.batch(1)
    closed = replace(by_hand.frontier([0]), active=[[False]])
    assert policy.grow(closed, batch) == [[False]]
    policy.observe(batch, *by_hand.finished([0], [0]))
    batch.rows[0].tokens.append(0)
    fresh = by_hand.batch(1)
    assert [step(policy, batch, [2]) for _ in range(20)] == [step(policy, fresh, [2]) for _ in range(20)]


def test_options_are_checked() -> None:
    for bad in ({"algorithm": "usb"}, {"most": -1}, {"explore": -1.0}, {"memory": 1.5}):
        with pytest.raises(ConfigError):
            config(**bad)
    assert Bandit.uses_clock
