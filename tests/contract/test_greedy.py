"""At temperature 0 every combination of methods says, token for token, what plain decoding says.

On a ragged batch: prompts of different lengths, rows that join while others run, leave one by one, or are cancelled.
"""

from __future__ import annotations

import pytest

from foretoken.engine import Engine
from foretoken.request import Request
from foretoken.types import FinishReason, Row
from tests.contract.law import greedy_output
from tests.contract.methods import Setup, choices, setups
from tests.contract.table import TableModel, near, random_table

TARGET = random_table(41, 4)
DRAFT = near(TARGET, 42)
FIRST = [
    Request((0, 1, 2, 3), max_new_tokens=11),
    Request((2,), max_new_tokens=16),
    Request((3, 3, 0, 1, 2, 0, 1), max_new_tokens=4),
]
LATER = [Request((1, 0), max_new_tokens=9), Request((3, 2, 1, 0, 0), max_new_tokens=13, stop_token_ids=frozenset({2}))]
LOSSLESS = [choice for choice in choices("accept") if choice.type.lossless]


def run(engine: Engine) -> tuple[list[Row], Row]:
    """Three rows start, one is cancelled, two more join. Returns those that ran to their end, and the cancelled one."""
    rows = engine.start(FIRST)
    engine.step()
    rows += engine.start(LATER[:1])
    engine.step()
    cancelled = rows.pop(1)
    engine.cancel(cancelled)
    rows += engine.start(LATER[1:])
    while engine.batch.rows:
        engine.step()
    return rows, cancelled


@pytest.mark.parametrize("setup", list(setups(accept=LOSSLESS)), ids=str)
def test_a_ragged_batch_says_what_plain_decoding_says(setup: Setup) -> None:
    rows, cancelled = run(setup.engine(TableModel(TARGET), TableModel(DRAFT)))
    for row in rows:
        assert tuple(row.output) == greedy_output(TARGET, row.request), row.request
    said = tuple(cancelled.output)
    assert len(said) >= 2
    assert said == greedy_output(TARGET, cancelled.request)[: len(said)]
    assert cancelled.finish is FinishReason.CANCELLED
