"""`Race`: numbers by which a drafter foretells the target, and which decide what comes even if it was not foretold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foretoken.errors import GenerationError
from foretoken.race import Race, winners
from foretoken.rng import SeededRng
from tests.contract.test_rng import row, surprise

LAW = torch.tensor([0.4, 0.1, 0.3, 0.2], dtype=torch.float64)
OTHER = torch.tensor([0.3, 0.3, 0.35, 0.05], dtype=torch.float64)
PLACES = 4000


def won(race: Race, law: Tensor, places: int = PLACES, done: int = 0, ahead: int = 0) -> Tensor:
    return winners(law, race.numbers(law.shape[-1], places, done, ahead))[0]


def test_tokens_win_as_often_as_their_law_says() -> None:
    """As `test_picks_follow_their_distribution`: 1 wrong alarm in 10,000, and a bias of 5% is found."""
    for law in (LAW, OTHER):
        counts = won(Race([1]), law).bincount(minlength=4).double()
        assert surprise(counts, law) < 21
        assert surprise(counts, law + torch.tensor([-0.04, 0.04, 0, 0])) > 21


def test_one_place_says_nothing_of_the_next() -> None:
    """A G statistic of pairs, 15 degrees of freedom; 45 is beyond its 99.99th percentile. Equal ones score 10,000."""
    first = won(Race([1]), LAW)
    pairs = (4 * first[:-1:2] + first[1::2]).bincount(minlength=16).double()
    assert surprise(pairs, (LAW[:, None] * LAW).flatten()) < 45
    again = (4 * first + won(Race([2]), LAW)).bincount(minlength=16).double()
    assert surprise(again, (LAW[:, None] * LAW).flatten()) < 45


def test_laws_that_are_alike_mostly_have_the_same_winner() -> None:
    """A token wins twice if no other is before it in either race, an exponential race of its own: exactly so often."""
    race = Race([1])
    same = float((won(race, LAW) == won(race, OTHER)).double().mean())
    exact = sum(1 / float(torch.maximum(LAW / LAW[i], OTHER / OTHER[i]).sum()) for i in range(4))
    apart = float((LAW - OTHER).abs().sum()) / 2
    assert (1 - apart) / (1 + apart) < exact < 1 - apart
    assert abs(same - exact) < 6 * (exact * (1 - exact) / PLACES) ** 0.5


def test_a_token_of_no_account_never_wins() -> None:
    """Numbers of 32 bits are 0 once in eight million, which wins whatever the probability: here five places of 400."""
    law = torch.full((1, 100_000), 1e-13)
    law[0, 7] = 1.0
    race = Race([1])
    assert {int(won(race, law, 1, place)) for place in range(400)} == {7}


def test_whoever_asks_about_a_place_is_told_the_same() -> None:
    law = torch.rand(6, 50, generator=torch.Generator().manual_seed(1))
    whole, other = Race([3]), Race([3])
    expected = won(whole, law, 6).tolist()
    assert [int(won(other, law[i], 1, 0, i)) for i in (2, 0, 1)] == [expected[i] for i in (2, 0, 1)]
    assert won(other, law[1:4], 3, 1).tolist() == expected[1:4]
    assert [int(won(other, law[i], 1, 2, i - 2)) for i in (5, 2)] == [expected[5], expected[2]]


def test_drafter_and_target_are_told_the_same_of_a_place() -> None:
    rows = [row(5), row(6)]
    draft, accept = SeededRng(rows, "draft"), SeededRng(rows, "accept")
    law = torch.rand(2, 4, 40, generator=torch.Generator().manual_seed(1))
    foretold = [draft.guess(law[:, depth], [True, depth < 3], depth) for depth in range(4)]
    said, mass = accept.race(law, torch.zeros(2, 4, dtype=torch.int64), [4, 3])
    assert said[0].tolist() == [tokens[0] for tokens in foretold]
    assert said[1, :3].tolist() == [tokens[1] for tokens in foretold[:3]]
    assert foretold[3][1] == 0
    assert bool((mass > 0).all() and mass.isfinite().all())
    free, _ = accept.along(law, torch.zeros(2, 4, dtype=torch.int64), [4, 3])
    assert free[0].tolist() != said[0].tolist(), "other rules have a stream of their own"
    assert draft.numbers(40, 2, 1).shape == (2, 2, 40)
    assert torch.equal(winners(law[:, 1:3], draft.numbers(40, 2, 1))[0], said[:, 1:3])
    rows[0].tokens.append(3)
    assert draft.guess(law[:, 1], [True, False], 0) == [foretold[1][0], 0]


@pytest.mark.parametrize("bad", [[0.0, 0.0], [torch.nan, 1.0], [torch.inf, 1.0]])
def test_nothing_to_choose_from_is_an_error(bad: list[float]) -> None:
    with pytest.raises(GenerationError, match="no usable probabilities"):
        SeededRng([row(1)], "draft").guess(torch.tensor([bad]), [True], 0)
