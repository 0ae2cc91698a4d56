"""Exact: the whole engine, with every combination of methods that fit, emits the target's own law.

Every random outcome is enumerated, in float64, and the probabilities of all outputs are compared with plain decoding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from foretoken.registry import find
from foretoken.request import Request, Sampling
from tests.contract.engine_law import engine_law
from tests.contract.law import exact_law
from tests.contract.methods import Choice, Setup, choices, pairwise, setups
from tests.contract.outcomes import distance
from tests.contract.table import Table, TableModel, constant_table, near, only, random_table

SAMPLED = Sampling(temperature=1.0)


@dataclass(frozen=True)
class World:
    """A target, a draft, and what is asked of them."""

    target: Table
    draft: Table
    request: Request


GOOD = random_table(1, 2)
GOOD_DRAFT = World(GOOD, near(GOOD, 3), Request((1, 0, 1), SAMPLED, 4))
PATCHY = World(
    random_table(2, 3, dead=0.3),
    random_table(4, 3, dead=0.3),
    Request((0, 1), SAMPLED, 4, stop_token_ids=frozenset({2})),
)
THREE = random_table(5, 3)
HARD_WORLDS = {
    "q = p": World(THREE, THREE, Request((0,), SAMPLED, 3)),
    "disjoint": World(only(THREE, [0]), only(random_table(6, 3), [1, 2]), Request((0, 2), SAMPLED, 4)),
    "overlap in one token": World(only(THREE, [0, 1]), only(random_table(6, 3), [1, 2]), Request((0, 2), SAMPLED, 3)),
    "certain target": World(only(THREE, [1]), THREE, Request((2, 0), SAMPLED, 4)),
    "certain draft": World(THREE, constant_table([0, 1, 0]), Request((2, 0), SAMPLED, 3)),
    "one token": World(THREE, near(THREE, 8), Request((0, 1, 2), SAMPLED, 1)),
    "every token stops": World(THREE, near(THREE, 8), Request((0,), SAMPLED, 3, stop_token_ids=frozenset(range(3)))),
}


def fitting(request: Request, setup: Setup) -> Request:
    """The request, at temperature 0 for rules that know nothing else."""
    return replace(request, sampling=Sampling()) if setup.accept.type.greedy_only else request


def off_by(setup: Setup, world: World) -> float:
    request = fitting(world.request, setup)
    law = engine_law(setup, TableModel(world.target), TableModel(world.draft), request)
    return distance(law, exact_law(world.target, request))


FIXED = Choice(find("length", "fixed"))
LOSSLESS = [choice for choice in choices("accept") if choice.type.lossless]


@pytest.mark.parametrize("setup", list(setups(accept=LOSSLESS)), ids=str)
def test_every_combination_of_methods_is_exact(setup: Setup) -> None:
    assert off_by(setup, GOOD_DRAFT) < 1e-9


@pytest.mark.parametrize("setup", pairwise(accept=tuple(LOSSLESS)), ids=str)
def test_impossible_tokens_and_a_stop_token(setup: Setup) -> None:
    assert off_by(setup, PATCHY) < 1e-9


def test_a_threshold_that_adapts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Confidence learns from a handful of judged tokens; here from the first, so that the threshold really moves."""
    monkeypatch.setattr("foretoken.length.confidence.FEWEST_SAMPLES", 0)
    adaptive = Choice(find("length", "confidence"), {"threshold": 0.3, "adaptive": True})
    for setup in setups(length=[adaptive], accept=LOSSLESS):
        assert off_by(setup, GOOD_DRAFT) < 1e-9, setup
        assert off_by(setup, PATCHY) < 1e-9, setup


@pytest.mark.parametrize("world", HARD_WORLDS)
@pytest.mark.parametrize("setup", list(setups(accept=LOSSLESS, length=[FIXED])), ids=str)
def test_hard_worlds(setup: Setup, world: str) -> None:
    assert off_by(setup, HARD_WORLDS[world]) < 1e-9


def test_an_outcome_alone_is_an_outcome_in_a_batch() -> None:
    """Every outcome as the only row of its batch: the same law."""
    for setup in setups(draft=choices("draft")[:1], length=[FIXED], accept=LOSSLESS):
        request = fitting(replace(GOOD_DRAFT.request, max_new_tokens=3), setup)
        models = TableModel(GOOD_DRAFT.target), TableModel(GOOD_DRAFT.draft)
        alone = engine_law(setup, *models, request, width=1)
        assert distance(alone, exact_law(GOOD_DRAFT.target, request)) < 1e-9
