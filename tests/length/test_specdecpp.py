"""SpecDec++ stops where the arithmetic of the paper says, and scores each token with the state that has read it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from foretoken.errors import ConfigError
from foretoken.length.specdecpp import SpecDecPP
from foretoken.types import Frontier


class Script:
    """A head that answers from a list, and remembers the states it was shown."""

    def __init__(self, answers: list[float]) -> None:
        self.answers, self.seen = answers, []

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        self.seen.append(hidden[0, 0].item())
        return torch.tensor([[self.answers[len(self.seen) - 1]]])


class OneRow:
    """A batch of one request, as far as a policy looks."""

    def __init__(self) -> None:
        self.memory: dict[object, Any] = {}
        self.rows = [self]


def candidates(policy: SpecDecPP, most: int = 20, batch: OneRow | None = None) -> int:
    """Drafted tokens of one step. The state behind the leaf at depth t read the token at depth t - 1."""
    batch = batch or OneRow()
    for depth in range(most):
        state = torch.full((1, 1, 1), float(depth - 1)) if depth else None
        frontier = Frontier(torch.tensor([[depth]]), torch.ones(1, 1), state, state, torch.ones(1, 1, dtype=torch.bool))
        if not policy.grow(frontier, batch):  # type: ignore[arg-type]
            return depth
    return most


def policy(answers: list[float], **options: Any) -> SpecDecPP:
    return SpecDecPP(SpecDecPP.Config(**options), Script([1.0, *answers]))  # type: ignore[arg-type]


def test_fixture_f9_three_scores_make_four_candidates() -> None:
    """Cumulative rejection .1, .28, .496 against .3: stop at the third score, the unscored fourth token goes along."""
    assert candidates(policy([0.9, 0.8, 0.7], threshold=0.3)) == 4


def test_every_token_is_scored_by_the_state_that_has_read_it() -> None:
    chosen = policy([0.9, 0.8, 0.7], threshold=0.3)
    candidates(chosen)
    # The state of depth 0 read the root and scores no candidate; then states 1, 2, 3 score candidates 1, 2, 3.
    assert chosen._head.seen == [0, 1, 2, 3]  # type: ignore[attr-defined]


def test_the_first_candidate_is_never_scored_by_the_root() -> None:
    chosen = SpecDecPP(SpecDecPP.Config(threshold=0.3), Script([0.0, 0.9, 0.1]))  # type: ignore[arg-type]
    assert candidates(chosen) == 3


def test_bounds_win_over_the_rule() -> None:
    assert candidates(policy([0.0] * 9, threshold=0.3, least=4)) == 4
    assert candidates(policy([1.0] * 9, threshold=0.3, most=6)) == 6


def test_a_risk_equal_to_the_threshold_goes_on() -> None:
    assert candidates(policy([0.5, 0.5], threshold=0.5)) == 3


def test_the_product_starts_again_with_every_step() -> None:
    batch = OneRow()
    chosen = policy([0.5, 1.0, 0.5], threshold=0.3)
    assert candidates(chosen, batch=batch) == 2
    assert candidates(chosen, batch=batch) == 2


def test_a_head_is_required_and_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="needs an acceptance head"):
        SpecDecPP()
    for bad in ({"threshold": 1.5}, {"least": -1}, {"least": 5, "most": 4}):
        with pytest.raises(ConfigError):
            SpecDecPP.Config(**bad)  # type: ignore[arg-type]
