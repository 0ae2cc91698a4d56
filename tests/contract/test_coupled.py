"""`coupled`: with any drafter, policy and neighbours, a seed says what plain decoding says with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from foretoken.engine import Engine
from foretoken.registry import find
from foretoken.request import Request, Sampling
from tests.contract.drawing import DrawingTable
from tests.contract.methods import Choice, Setup, setups
from tests.contract.table import TableModel, near, random_table

TARGET = random_table(71, 4)
DRAFT = near(TARGET, 72)
COUPLED = [Choice(find("accept", "coupled"))]
REQUESTS = [
    Request((0, 1, 2), Sampling(temperature=1.0), 12, seed=1),
    Request((3,), Sampling(temperature=1.0), 15, seed=2),
    Request((2, 2, 1, 0, 3), Sampling(temperature=1.3, top_k=3, repetition_penalty=1.2), 9, seed=1),
    Request((0, 1), Sampling(), 10, seed=4),
    Request((0, 1, 2), Sampling(temperature=1.0), 12, seed=2**40 + 1),
]


def texts(one: Engine, asked: Sequence[Request]) -> list[list[int]]:
    rows = one.start(list(asked))
    while one.batch.rows:
        one.step()
    return [row.output for row in rows]


def plainly(request: Request) -> list[int]:
    setup = next(setups(draft=[Choice(find("draft", "none"))], accept=COUPLED))
    return texts(setup.engine(TableModel(TARGET), TableModel(DRAFT)), [request])[0]


PLAIN = [plainly(request) for request in REQUESTS]


@pytest.mark.parametrize("kind", [TableModel, DrawingTable])
@pytest.mark.parametrize("setup", list(setups(accept=COUPLED)), ids=str)
def test_every_seed_says_what_plain_decoding_says(setup: Setup, kind: type[TableModel]) -> None:
    def engine() -> Engine:
        return setup.engine(TableModel(TARGET), kind(DRAFT))

    assert [texts(engine(), [request])[0] for request in REQUESTS] == PLAIN
    assert texts(engine(), REQUESTS) == PLAIN
    assert texts(engine(), REQUESTS[:2]) == PLAIN[:2]
    late = engine()
    rows = late.start(REQUESTS[1:3])
    late.step()
    rows += late.start(REQUESTS[:1])
    while late.batch.rows:
        late.step()
    assert [row.output for row in rows] == [PLAIN[1], PLAIN[2], PLAIN[0]]


def test_seeds_differ() -> None:
    assert PLAIN[0] != PLAIN[4]
    assert len({tuple(plainly(replace(REQUESTS[0], seed=seed))) for seed in range(20)}) > 15


THREE = [Choice(find("length", "fixed"), {"k": 3}), Choice(find("length", "confidence"), {"threshold": 0.0, "most": 3})]


@pytest.mark.parametrize("kind", [TableModel, DrawingTable])
@pytest.mark.parametrize("length", THREE, ids=str)
def test_a_draft_like_the_target_foretells_all_it_says(length: Choice, kind: type[TableModel]) -> None:
    """Drawn in one go, or one after the other."""
    draft = [Choice(find("draft", "model"))]
    (setup,) = setups(draft=draft, length=[length], accept=COUPLED, shape=[Choice(find("shape", "chain"))])
    one = setup.engine(TableModel(TARGET), kind(TARGET))
    for asked, said in (([REQUESTS[0]], [PLAIN[0]]), (REQUESTS, PLAIN)):
        rows = one.start(asked)
        while one.batch.rows:
            one.step()
        assert [row.output for row in rows] == said
        for row in rows:
            assert row.counts.num_accepted + row.counts.num_cut >= row.counts.num_tested > 0
            assert row.counts.num_target_forwards == -(-len(row.output) // 4)
