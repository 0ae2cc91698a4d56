"""Log-probabilities of emitted tokens are the target's own, whatever proposed the token: those of plain decoding."""

from __future__ import annotations

import math

import pytest

from foretoken.request import Request, Sampling
from foretoken.types import Logprob
from tests.contract.law import softmax
from tests.contract.methods import Setup, pairwise
from tests.contract.table import TableModel, near, random_table

TARGET = random_table(81, 4)
DRAFT = near(TARGET, 82)
SAMPLING = Sampling(temperature=1.4, top_k=3, presence_penalty=0.5)


@pytest.mark.parametrize("setup", pairwise(), ids=str)
def test_logprobs_are_those_of_the_unprocessed_target(setup: Setup) -> None:
    sampling = Sampling(presence_penalty=0.5) if setup.accept.type.greedy_only else SAMPLING
    asked = [
        Request((0, 1, 2), sampling, 12, seed=1, logprobs=2),
        Request((3,), sampling, 7, seed=2, logprobs=0),
        Request((1, 1), sampling, 9, seed=3),
        Request((2, 0), sampling, 9, seed=4, logprobs=99),
    ]
    engine = setup.engine(TableModel(TARGET), TableModel(DRAFT))
    rows = engine.start(asked)
    reported: dict[int, list[Logprob]] = {row.id: [] for row in rows}
    while engine.batch.rows:
        for event in engine.step():
            assert (event.logprobs is None) == (rows[event.id].request.logprobs is None)
            reported[event.id] += event.logprobs or []
    assert reported.pop(rows[2].id) == []
    for row_id, logprobs in reported.items():
        row = rows[row_id]
        assert len(logprobs) == len(row.output)
        for i, (token, logprob) in enumerate(zip(row.output, logprobs, strict=True)):
            own = [math.log(p) for p in softmax(TARGET([*row.request.prompt, *row.output[:i]]))]
            assert logprob.chosen == pytest.approx(own[token], abs=1e-9)
            best = sorted(range(4), key=lambda t: -own[t])[: row.request.logprobs]
            assert [t for t, _ in logprob.top] == best
            assert [value for _, value in logprob.top] == pytest.approx([own[t] for t in best], abs=1e-9)
