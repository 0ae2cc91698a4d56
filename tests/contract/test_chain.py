"""Drafts that a model draws by itself, several tokens at once: as exact as those drawn one by one, and the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foretoken.length.base import DEEPEST, LengthPolicy, Plan
from foretoken.models.base import Enough
from foretoken.registry import find
from foretoken.request import Request, Sampling
from foretoken.rng import SeededRng, Stream
from foretoken.types import Batch
from tests.contract.drawing import AHEAD, DrawingTable, coarse_table
from tests.contract.engine_law import engine_law
from tests.contract.law import exact_law
from tests.contract.methods import Choice, Setup, choices, setups
from tests.contract.outcomes import distance
from tests.contract.table import TableModel, cycle_table, near, random_table

TARGET, COARSE = random_table(5, 3), coarse_table(6, 3)
WARM = Sampling(temperature=1.0)
DRAFTED = [Choice(find("draft", "model"))]
LOSSLESS = [one for one in choices("accept") if one.type.lossless and not one.type.greedy_only]
SAMPLED = list(setups(draft=DRAFTED, accept=LOSSLESS))
REQUESTS = [
    Request((0, 1, 2), WARM, 12, seed=1),
    Request((2,), WARM, 15, seed=2),
    Request((2, 2, 1, 0), Sampling(temperature=1.3), 9, seed=3, stop_token_ids=frozenset({1})),
    Request((1, 1), Sampling(temperature=1.0, top_k=2, repetition_penalty=1.2), 9, seed=4),
    Request((0, 2), Sampling(), 12, seed=5),
]


@pytest.fixture(autouse=True)
def guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Policies that do not say how many they will want get three, so that some are dropped."""
    monkeypatch.setattr(LengthPolicy, "plan", lambda *_: Plan(3))


@pytest.mark.parametrize("setup", SAMPLED, ids=str)
def test_the_law_is_the_targets(setup: Setup) -> None:
    """Numbers that are looked at and not spent serve again, and nothing that was kept may depend on them."""
    draft = DrawingTable(COARSE)
    request = Request((0, 1), WARM, 3)
    # One by one: how many numbers are looked at depends on the other rows.
    law = engine_law(setup, TableModel(TARGET), draft, request, width=1)
    assert distance(law, exact_law(TARGET, request)) < 1e-9
    assert draft.num_chains or "k=0" in str(setup)


SURE = Choice(find("length", "confidence"), {"threshold": 0.6})


@pytest.mark.parametrize("setup", list(setups(draft=DRAFTED, length=[SURE], accept=LOSSLESS)), ids=str)
def test_what_is_drawn_already_decides_nothing(setup: Setup) -> None:
    """Only from four tokens on would it show that a policy has seen the token it decides about."""
    request = Request((0, 1), WARM, 4)
    law = engine_law(setup, TableModel(TARGET), DrawingTable(COARSE), request, width=1)
    assert distance(law, exact_law(TARGET, request)) < 1e-9


@pytest.mark.parametrize("setup", SAMPLED, ids=str)
def test_texts_and_counts_are_those_of_tokens_drawn_one_by_one(setup: Setup) -> None:
    """Alone and in batches, whose rows only sometimes are alike; a stop token may be drawn in the middle."""
    table = near(TARGET, 7)
    for asked in ([one] for one in REQUESTS), [REQUESTS], [REQUESTS[:2]], [[REQUESTS[0]] * 3]:
        for together in asked:
            found = []
            for draft in (TableModel(table), DrawingTable(table)):
                engine = setup.engine(TableModel(TARGET), draft)
                rows = engine.start([replace(one) for one in together])
                while engine.batch.rows:
                    engine.step()
                found.append([(row.output, replace(row.counts, num_draft_forwards=0)) for row in rows])
                forwards = sum(row.counts.num_draft_forwards for row in rows)
                assert forwards >= sum(row.counts.num_drafted for row in rows)
            assert found[0] == found[1]


@pytest.mark.parametrize("setup", list(setups(draft=DRAFTED, length=[SURE], accept=LOSSLESS)), ids=str)
def test_draws_that_end_when_it_is_enough_are_those_that_were_asked_for(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same texts, counts and forwards as one by one, numbers spent for what was drawn alone; and the same law."""

    def found(draft: TableModel) -> list[object]:
        rows = []
        for request in REQUESTS:
            engine = setup.engine(TableModel(TARGET), draft)
            rows += engine.start([replace(request)])
            while engine.batch.rows:
                engine.step()
        return [(row.output, row.counts) for row in rows]

    table = near(TARGET, 7)
    monkeypatch.setattr(LengthPolicy, "plan", lambda *_: Plan(1))
    asked = found(TableModel(table))

    def plan(policy: LengthPolicy, batch: Batch, *_: int) -> Plan:
        ends = batch.rows[0].request.stop_token_ids
        return Plan(3, DEEPEST, DEEPEST, Enough((1, 2, 3), lambda probs: probs[-1] < 0.6, ends))

    monkeypatch.setattr(LengthPolicy, "plan", plan)
    draft = DrawingTable(table)
    assert found(draft) == asked
    assert draft.num_chains
    request = Request((0, 1), WARM, 3)
    law = engine_law(setup, TableModel(TARGET), DrawingTable(COARSE), request, width=1)
    assert distance(law, exact_law(TARGET, request)) < 1e-9


def test_a_draft_that_was_ended_is_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    (setup,) = setups(draft=DRAFTED, length=[SURE], accept=LOSSLESS[:1], shape=choices("shape")[:1])
    monkeypatch.setattr(LengthPolicy, "plan", lambda *_: Plan(3, 3, DEEPEST, Enough((2,), lambda _: True)))
    monkeypatch.setattr(SURE.type, "grow", lambda *_: pytest.fail("nobody needs to know"))
    engine = setup.engine(TableModel(TARGET), DrawingTable(near(TARGET, 7)))
    (row,) = engine.start([replace(REQUESTS[-1])])
    engine.step()
    assert row.counts.num_drafted == row.counts.num_draft_forwards == 2


@pytest.mark.parametrize("warmth", [0.0, 1.0])
def test_what_was_drawn_after_a_stop_token_is_no_candidate(warmth: float) -> None:
    """Three are drawn at once, of which the second ends the text, and as many numbers are spent."""
    length = Choice(find("length", "fixed"), {"k": 5})
    (setup,) = setups(draft=DRAFTED, length=[length], accept=LOSSLESS[:1], shape=choices("shape")[:1])
    cycle = cycle_table(4)
    draft = DrawingTable(cycle)
    engine = setup.engine(TableModel(cycle), draft)
    asked = Request((0, 1), Sampling(temperature=warmth), 20, stop_token_ids=frozenset({3}))
    (row,) = engine.start([asked])
    engine.step()
    assert (row.output, row.counts.num_drafted, draft.num_chains) == ([2, 3], 2, 1)
    spent, fresh = row.memory.get((SeededRng, "draft")), Stream(asked.seed, "draft")
    assert (spent is None) is (warmth == 0)
    assert spent is None or spent.peek(1) == fresh.peek(3)[2:]


def test_what_is_known_to_be_wanted_is_drawn_in_as_few_goes_as_can_be() -> None:
    (setup,) = setups(
        draft=DRAFTED,
        length=[Choice(find("length", "fixed"), {"k": 5})],
        accept=LOSSLESS[:1],
        shape=choices("shape")[:1],
    )
    draft = DrawingTable(near(TARGET, 7))
    engine = setup.engine(TableModel(TARGET), draft)
    (row,) = engine.start([Request((0, 1, 2), Sampling(), 100)])
    engine.step()
    read = draft.num_forwards  # the prompt, then three and two tokens at once
    assert (draft.num_chains, AHEAD) == (2, 3)
    assert row.counts.num_draft_forwards == 5
    engine.step()
    assert draft.num_chains == 4
    assert draft.num_forwards - read <= 5 + 1  # and one that was drafted last, and kept
