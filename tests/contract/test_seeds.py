"""A request's text depends on its own seed alone: not on its neighbours, their order, or the time it joins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from foretoken.engine import Engine
from foretoken.request import Request, Sampling
from tests.contract.methods import Setup, pairwise
from tests.contract.table import TableModel, near, random_table

TARGET = random_table(71, 4)
DRAFT = near(TARGET, 72)
REQUESTS = [
    Request((0, 1, 2), Sampling(temperature=1.0), 12, seed=1),
    Request((3,), Sampling(temperature=1.0), 15, seed=2),
    Request((2, 2, 1, 0, 3), Sampling(temperature=1.3, top_k=3, repetition_penalty=1.2), 9, seed=1),
    Request((0, 1, 2), Sampling(temperature=1.0), 12, seed=2**40 + 1),
]


def engine(setup: Setup) -> Engine:
    return setup.engine(TableModel(TARGET), TableModel(DRAFT))


def texts(one: Engine, asked: Sequence[Request]) -> list[list[int]]:
    rows = one.start(list(asked))
    while one.batch.rows:
        one.step()
    return [row.output for row in rows]


SAMPLING = [setup for setup in pairwise() if not setup.accept.type.greedy_only]


@pytest.mark.parametrize("setup", SAMPLING, ids=str)
def test_the_same_seed_gives_the_same_text_alone_and_in_any_batch(setup: Setup) -> None:
    alone = [texts(engine(setup), [request])[0] for request in REQUESTS]
    assert texts(engine(setup), REQUESTS) == alone
    assert texts(engine(setup), REQUESTS[::-1]) == alone[::-1]
    assert texts(engine(setup), [REQUESTS[2]] * 3) == [alone[2]] * 3
    late = engine(setup)
    rows = late.start(REQUESTS[:2])
    late.step()
    rows += late.start(REQUESTS[2:3])
    late.step()
    rows += late.start(REQUESTS[3:])
    while late.batch.rows:
        late.step()
    assert [row.output for row in rows] == alone


@pytest.mark.parametrize("setup", SAMPLING, ids=str)
def test_an_engine_remembers_nothing_of_earlier_requests(setup: Setup) -> None:
    one = engine(setup)
    assert texts(one, REQUESTS) == texts(one, REQUESTS)


@pytest.mark.parametrize("setup", SAMPLING, ids=str)
def test_different_seeds_differ(setup: Setup) -> None:
    said = {tuple(text) for text in texts(engine(setup), [replace(REQUESTS[0], seed=seed) for seed in range(20)])}
    assert len(said) > 15
