"""SpecDec++ stops where the arithmetic of the paper says, and scores each token with the state that has read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from foretoken.errors import ConfigError
from foretoken.length.base import single
from foretoken.length.specdecpp import SpecDecPP
from foretoken.models.acceptance_head import AcceptanceHead, HeadShape
from foretoken.request import Request, Sampling
from foretoken.types import Continuation, Frontier


class Script(AcceptanceHead):
    """A head that answers from a list, and remembers what it was shown: state, probability, temperature."""

    def __init__(self, answers: list[float]) -> None:
        super().__init__(HeadShape(1))
        self.answers, self.seen = answers, []

    def read(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden

    def judge(self, hidden: torch.Tensor, probs: Sequence[float], temperatures: Sequence[float]) -> list[float]:
        self.seen.append(list(zip(hidden[:, 0].tolist(), probs, temperatures, strict=True)))
        return [self.answers[len(self.seen) - 1]] * len(hidden)

    def glance(self, prob: float, temperature: float) -> float:
        return prob / (1 + temperature)


class OneRow:
    """A batch of one request, as far as a policy looks."""

    def __init__(self, temperature: float = 0.0) -> None:
        self.memory: dict[object, Any] = {}
        self.request = Request((0,), Sampling(temperature=temperature))
        self.rows = [self]


def frontier(depth: int, prob: list[float]) -> Frontier:
    """Leaves of some rows at one depth. The state behind the leaf at depth t read the token at depth t - 1."""
    rows = len(prob)
    state = torch.full((rows, 1, 1), float(depth - 1))
    drawn = Continuation(torch.zeros(rows, 1).long(), torch.tensor(prob)[:, None], state, state, None)
    return Frontier([[depth]] * rows, single(prob), [[True]] * rows, drawn if depth else None)


def candidates(
    policy: SpecDecPP, most: int = 20, batch: OneRow | None = None, probs: Sequence[float] = [1.0] * 21
) -> int:
    """Drafted tokens of one step."""
    batch = batch or OneRow()
    for depth in range(most):
        if policy.grow(frontier(depth, [probs[depth]]), batch) == [[False]]:  # type: ignore[arg-type]
            return depth
    return most


def policy(answers: list[float], **options: Any) -> SpecDecPP:
    return SpecDecPP(SpecDecPP.Config(**options), Script(answers))  # type: ignore[arg-type]


def test_fixture_f9_three_scores_make_four_candidates() -> None:
    """Cumulative rejection .1, .28, .496 against .3: stop at the third score, the unscored fourth token goes along."""
    assert candidates(policy([0.9, 0.8, 0.7], threshold=0.3)) == 4


def test_every_token_is_scored_by_the_state_that_has_read_it_and_the_probability_it_had() -> None:
    chosen = policy([0.9, 0.8, 0.7], threshold=0.3)
    candidates(chosen, batch=OneRow(0.5), probs=[1.0, 0.11, 0.22, 0.33, 0.44])
    # The state of depth 0 read the root and scores no candidate; states 1, 2, 3 score candidates 1, 2, 3.
    seen = torch.tensor(chosen._head.seen)[:, 0]  # type: ignore[attr-defined]
    assert seen[:, 0].tolist() == [1, 2, 3]
    assert seen[:, 1].tolist() == pytest.approx([0.11, 0.22, 0.33])
    assert seen[:, 2].tolist() == [0.5] * 3


def test_rows_remember_their_own_tokens_and_keep_their_own_temperature() -> None:
    cold, hot = OneRow(), OneRow(1.0)
    both = OneRow()
    both.rows = [cold, hot]
    chosen = policy([0.5, 1.0], threshold=0.6)
    for depth, prob in enumerate(([1.0, 1.0], [0.1, 0.2], [0.3, 0.4])):
        chosen.grow(frontier(depth, prob), both)  # type: ignore[arg-type]
    both.rows = [hot, cold]  # rows move when others leave
    chosen.grow(frontier(3, [0.5, 0.6]), both)  # type: ignore[arg-type]
    first, second = chosen._head.seen[-1]  # type: ignore[attr-defined]
    assert first == pytest.approx([2, 0.4, 1.0])
    assert second == pytest.approx([2, 0.3, 0.0])
    assert hot.memory[chosen] == pytest.approx([0.5, 0.5])
    assert cold.memory[chosen] == pytest.approx([0.5, 0.6])


def test_the_newest_token_counts_by_its_draft_probability_when_asked_for() -> None:
    """Risks .1, .28 before the newest token; with its .9, .6 they are .19 and 1 - .9 x .6 = .46."""
    probs = [1.0, 0.9, 0.6, 0.9, 0.9]
    assert candidates(policy([0.9, 0.8, 0.7], threshold=0.3), probs=probs) == 4
    assert candidates(policy([0.9, 0.8, 0.7], threshold=0.3, newest=True), probs=probs) == 2
    assert candidates(policy([0.9, 0.8, 0.7], threshold=0.3, newest=True), batch=OneRow(1.0), probs=probs) == 1


def test_the_probability_of_the_newest_token_is_not_in_the_product_twice() -> None:
    assert candidates(policy([1.0] * 9, threshold=0.3, newest=True, most=6), probs=[0.8] * 9) == 6


def test_the_first_candidate_is_never_scored_by_the_root() -> None:
    """The state behind it read the root, so it is not even asked."""
    chosen = policy([0.9, 0.1], threshold=0.3)
    assert candidates(chosen) == 3
    assert [state for ((state, *_),) in chosen._head.seen] == [1, 2]  # type: ignore[attr-defined]


def test_bounds_win_over_the_rule() -> None:
    assert candidates(policy([0.0] * 9, threshold=0.3, least=4)) == 4
    assert candidates(policy([1.0] * 9, threshold=0.3, most=6)) == 6


def test_a_risk_equal_to_the_threshold_goes_on() -> None:
    assert candidates(policy([0.5, 0.5], threshold=0.5)) == 3


def test_the_product_starts_again_with_every_step() -> None:
    batch = OneRow()
    chosen = policy([0.8, 0.6] * 2, threshold=0.3)
    assert candidates(chosen, batch=batch) == 3
    assert candidates(chosen, batch=batch) == 3


def test_a_head_is_required_and_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="needs an acceptance head"):
        SpecDecPP()
    for bad in ({"threshold": 1.5}, {"least": -1}, {"least": 5, "most": 4}):
        with pytest.raises(ConfigError):
            SpecDecPP.Config(**bad)  # type: ignore[arg-type]
