"""`SeededRng`, the random numbers of production: what the enumeration takes for granted about them."""

from __future__ import annotations

import math

import pytest
import torch

from foretoken.errors import GenerationError
from foretoken.request import Request
from foretoken.rng import SeededRng, Stream
from foretoken.tokenizer import TextPieces
from foretoken.types import Row

ALMOST_ONE = math.nextafter(1.0, 0.0)
YES = [True]


def row(seed: int) -> Row:
    return Row(0, Request((0,), seed=seed), TextPieces(lambda ids: ""), 9, [0])


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Uniform numbers to come, in place of random ones."""
    coming: list[float] = []
    monkeypatch.setattr(Stream, "next", lambda self: coming.pop(0))
    return coming


@pytest.mark.parametrize(
    ("uniform", "prob", "comes_up"),
    [
        (0.0, 0.0, False),
        (0.0, 5e-324, True),
        (0.3, 0.3, False),
        (0.3, math.nextafter(0.3, 1), True),
        (ALMOST_ONE, 1.0, True),
        (ALMOST_ONE, ALMOST_ONE, False),
    ],
)
def test_a_coin_comes_up_below_its_probability(
    forced: list[float], uniform: float, prob: float, comes_up: bool
) -> None:
    forced.append(uniform)
    assert SeededRng([row(1)], "accept").coin(0, prob) is comes_up


@pytest.mark.parametrize(
    ("uniform", "probs", "token"),
    [
        (0.0, [0.0, 0.0, 0.4, 0.6], 2),
        (0.0, [0.4, 0.6], 0),
        (0.4, [0.4, 0.0, 0.6], 2),
        (math.nextafter(0.5, 0), [0.5, 0.5], 0),
        (0.5, [0.5, 0.5], 1),
        (ALMOST_ONE, [0.4, 0.6, 0.0, 0.0], 1),
        (ALMOST_ONE, [1.0, 0.0], 0),
        (ALMOST_ONE, [0.1] * 10 + [0.0], 9),
        (0.0, [0.0, 1e-30, 1.0], 1),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_token_of_probability_zero_is_never_picked(
    forced: list[float], uniform: float, probs: list[float], token: int, dtype: torch.dtype
) -> None:
    forced.append(uniform)
    assert SeededRng([row(1)], "draft").pick(torch.tensor([probs], dtype=dtype), YES) == [token]


@pytest.mark.parametrize("uniform", [0.0, ALMOST_ONE])
def test_rounded_probabilities_over_a_large_vocabulary(forced: list[float], uniform: float) -> None:
    """In float32 the sum is not one; the extremes must still land on the first and last possible token."""
    probs = torch.rand(1, 50_000, generator=torch.Generator().manual_seed(1))
    probs[:, :7] = probs[:, -9:] = 0
    forced.append(uniform)
    (token,) = SeededRng([row(1)], "draft").pick(probs / probs.sum(), YES)
    assert token == (7 if uniform == 0 else 49_990)


def test_only_active_entries_spend_randomness(forced: list[float]) -> None:
    forced += [0.1, 0.9, 0.1, 0.9]
    rng = SeededRng([row(1), row(2)], "accept")
    assert rng.pick(torch.full((2, 2), 0.5), [False, True]) == [0, 0]
    tokens, _ = rng.along(torch.full((2, 3, 2), 0.5), torch.ones(2, 3, dtype=torch.int64), [2, 1])
    assert tokens.tolist() == [[1, 0, 0], [1, 0, 0]]
    assert forced == []


def test_tokens_along_a_chain_are_drawn_like_any_others() -> None:
    """A number per node, none where the row is left out, and nothing is the matter where nothing can be drawn."""
    law = torch.rand(3, 4, 9, generator=torch.Generator().manual_seed(1))
    law[1, 2] = torch.nan
    rows = [row(1), row(2), row(3)]
    tokens, mass = SeededRng(rows, "accept").along(law, torch.ones(3, 4, dtype=torch.int64), [4, 2, 0])
    again = SeededRng([row(1), row(2), row(3)], "accept")
    one_by_one = [again.pick(law[:1, node], YES)[0] for node in range(4)]
    assert tokens[0].tolist() == one_by_one
    assert len(set(one_by_one)) > 1
    assert tokens[1, :2].tolist() == [again.pick(law[:2, node], [False, True])[1] for node in range(2)]
    assert rows[2].memory == {}
    assert mass[0].tolist() == pytest.approx(law[0].double().sum(-1).tolist())


@pytest.mark.parametrize("bad", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_no_usable_probabilities_is_an_error_with_a_hint(bad: list[float]) -> None:
    with pytest.raises(GenerationError, match="no usable probabilities") as caught:
        SeededRng([row(1)], "draft").pick(torch.tensor([bad]), YES)
    assert "float32" in (caught.value.hint or "")


def uniforms(seed: int, purpose: str, count: int = 4000) -> torch.Tensor:
    stream = Stream(seed, purpose)
    return torch.tensor([stream.next() for _ in range(count)], dtype=torch.float64)


def test_the_same_seed_and_purpose_give_the_same_numbers() -> None:
    assert torch.equal(uniforms(5, "draft", 200), uniforms(5, "draft", 200))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((5, "draft"), (5, "accept")),
        ((5, "draft"), (6, "draft")),
        ((5, "accept"), (5 + 2**32, "accept")),
        ((0, "draft"), (2**32, "draft")),
    ],
)
def test_streams_are_independent(one: tuple[int, str], other: tuple[int, str]) -> None:
    """Chi-square over a 5 x 5 grid of pairs, 24 degrees of freedom; 60 is beyond its 99.99th percentile.

    Identical streams would fill the diagonal alone and score 16,000.
    """
    grid = torch.zeros(5, 5, dtype=torch.float64)
    cells = (uniforms(*one) * 5).long(), (uniforms(*other) * 5).long()
    grid.index_put_(cells, torch.ones(4000, dtype=torch.float64), accumulate=True)
    assert ((grid - 160) ** 2 / 160).sum() < 60


def surprise(counts: torch.Tensor, probs: torch.Tensor) -> float:
    """G statistic of counts against a distribution: about chi-square with (tokens - 1) degrees of freedom."""
    return float(2 * torch.where(counts > 0, counts * (counts / (counts.sum() * probs)).log(), 0.0).sum())


def test_picks_follow_their_distribution() -> None:
    """4,000 picks against a threshold of 21 (3 degrees of freedom: wrong alarms 1 in 10,000).

    Moving 5% of the mass from the likeliest token to the rarest scores 140 on average, so that a bias of that size
    passes with a probability far below 1 in 10,000. The last line shows it.
    """
    probs = torch.tensor([0.4, 0.1, 0.3, 0.2], dtype=torch.float64)
    rng = SeededRng([row(seed) for seed in range(40)], "draft")
    everyone = [True] * 40
    picks = torch.tensor([rng.pick(probs.repeat(40, 1), everyone) for _ in range(100)]).flatten()
    counts = picks.bincount(minlength=4).double()
    assert surprise(counts, probs) < 21
    assert surprise(counts, probs + torch.tensor([-0.05, 0.05, 0, 0])) > 21


def test_coins_follow_their_probability() -> None:
    """4,000 coins of 0.3: six standard deviations are 174; a bias of 5% would be 200 off."""
    rng = SeededRng([row(seed) for seed in range(40)], "accept")
    coins = [rng.coin(b, 0.3) for b in range(40) for _ in range(100)]
    assert abs(sum(coins) - 1200) < 120
