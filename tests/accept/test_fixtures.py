"""Numbers known exactly, from the papers or by hand: acceptance rates, lengths, and what they are worth in time.

All are computed from the package's own rules and counters by enumerating every outcome.
"""

from __future__ import annotations

import pytest
import torch

from foretoken.accept.base import residual
from foretoken.accept.block import Block
from foretoken.accept.rejection import Rejection
from foretoken.draft.model import ModelDrafter
from foretoken.engine import Engine
from foretoken.length.fixed import Fixed
from foretoken.metrics import Stats
from foretoken.request import Request, Sampling
from foretoken.shape.chain import Chain
from foretoken.types import Counts, Drawn
from tests.contract.engine_law import scripted
from tests.contract.outcomes import Script, distance, every_outcome
from tests.contract.rule_law import Step
from tests.contract.table import TableModel, constant_table

P = [1 / 2, 3 / 10, 1 / 5]


@pytest.mark.parametrize("rule", [Rejection, Block])
@pytest.mark.parametrize(
    ("q", "accepted"), [([1 / 5, 3 / 10, 1 / 2], 7 / 10), ([7 / 10, 1 / 5, 1 / 10], 4 / 5), (P, 1.0)]
)
def test_one_draw_is_accepted_as_often_as_the_laws_overlap(
    rule: type[Rejection | Block], q: list[float], accepted: float
) -> None:
    """The overlap of p and q, the sum of their minima, is the most any rule can accept of one draw."""
    step = Step(rule(), Drawn.IID, constant_table(P), constant_table(q), (1,))
    assert step.expected_accepted() == pytest.approx(accepted, abs=1e-12)
    assert distance(step.law(), step.exact()) < 1e-12


@pytest.mark.parametrize("rule", [Rejection, Block])
@pytest.mark.parametrize(("token", "q"), [(0, [0.4, 0.3, 0.3]), (1, [0.3, 0.4, 0.3]), (2, [0.3, 0.3, 0.4])])
def test_a_token_that_was_looked_up_is_accepted_as_often_as_the_target_says_it(
    rule: type[Rejection | Block], token: int, q: list[float]
) -> None:
    step = Step(rule(), Drawn.POINT, constant_table(P), constant_table(q), (1,))
    assert step.expected_accepted() == pytest.approx(P[token], abs=1e-12)


def test_what_is_left_after_a_rejection() -> None:
    p = torch.tensor(P, dtype=torch.float64)
    assert residual(p, torch.tensor([0.2, 0.3, 0.5]).double()).tolist() == [1, 0, 0]
    assert residual(p, torch.tensor([0.7, 0.2, 0.1]).double()).tolist() == pytest.approx([0, 1 / 2, 1 / 2])
    assert residual(p, torch.tensor([0.0, 1.0, 0.0]).double()).tolist() == pytest.approx([5 / 7, 0, 2 / 7])
    assert residual(p, p).tolist() == P  # nothing is left, and a rejection cannot happen
    assert residual(torch.zeros(3), torch.ones(3) / 3).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("rule", "accepted"), [(Rejection, 10 / 9), (Block, 11 / 9)])
def test_judging_a_chain_of_two_as_a_whole_keeps_a_ninth_more(rule: type[Rejection | Block], accepted: float) -> None:
    """p = (1/3, 2/3), q = (2/3, 1/3), the example of the block verification paper."""
    step = Step(rule(), Drawn.IID, constant_table([1 / 3, 2 / 3]), constant_table([2 / 3, 1 / 3]), (1, 1))
    assert step.expected_accepted() == pytest.approx(accepted, abs=1e-12)
    assert distance(step.law(), step.exact()) < 1e-12


def mean_counts(alpha: float, k: int) -> Counts:
    """Expected counts of one step of the engine, with candidate length k and a chance of alpha for every token.

    The draft always says 0 and the target says it with probability alpha.
    """
    target, draft = constant_table([alpha, 1 - alpha]), constant_table([1.0, 0.0])

    def play(scripts: list[Script]) -> list[Counts]:
        drafter = ModelDrafter(model=TableModel(draft))
        engine = Engine(
            TableModel(target), drafter, Fixed(Fixed.Config(k)), Chain(), Rejection(), rng=scripted(scripts)
        )
        rows = engine.start([Request((0,), Sampling(temperature=1.0), 40, seed=i) for i in range(len(scripts))])
        engine.step()
        return [row.counts for row in rows]

    mean = Counts(0, 1, k, k, 0, 0, 0)
    for counts, prob in every_outcome(play):
        mean.num_tokens += prob * counts.num_tokens  # type: ignore[assignment]
        assert (counts.num_target_forwards, counts.num_draft_forwards, counts.num_drafted) == (1, k, k)
    return mean


@pytest.mark.parametrize("alpha", [0.6, 0.7, 0.9])
@pytest.mark.parametrize("k", [0, 1, 2, 5])
def test_block_efficiency_of_a_fixed_candidate_length(alpha: float, k: int) -> None:
    """1 + alpha + ... + alpha^k emitted tokens per target forward."""
    efficiency = Stats(mean_counts(alpha, k), 1.0).block_efficiency
    assert efficiency == pytest.approx((1 - alpha ** (k + 1)) / (1 - alpha), abs=1e-12)


@pytest.mark.parametrize(
    ("cost", "alpha", "best", "gain"),
    [
        (0.1, 0.6, 3, 1.674),
        (0.1, 0.7, 4, 1.981),
        (0.1, 0.8, 6, 2.470),
        (0.2, 0.6, 2, 1.400),
        (0.2, 0.7, 3, 1.583),
        (0.2, 0.8, 4, 1.868),
        (0.2, 0.9, 7, 2.373),
    ],
)
def test_the_best_fixed_candidate_length(cost: float, alpha: float, best: int, gain: float) -> None:
    """Tokens per unit of time, a draft forward costing `cost` target forwards, measured from one step's counts."""
    gains = []
    for k in range(best + 2):
        counts = mean_counts(alpha, k)
        gains.append(counts.num_tokens / (counts.num_target_forwards + cost * counts.num_draft_forwards))
    assert max(range(len(gains)), key=gains.__getitem__) == best
    assert gains[best] == pytest.approx(gain, abs=5e-4)
