"""What is counted is what happened: recounted from events, and held against the identities that must hold.

Every step emits what it accepted and one token more, except that a stop inside the draft cuts that token off. Hence

    drafted = tokens - target forwards + discarded + cut
"""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

import pytest

from foretoken.engine import Engine
from foretoken.metrics import Stats, total
from foretoken.request import Request, Sampling
from foretoken.types import Counts, FinishReason, Origin, Row, TokenEvent
from tests.contract.methods import Setup, pairwise
from tests.contract.table import TableModel, near, random_table

TARGET = random_table(61, 4)
DRAFT = near(TARGET, 62)


def requests(setup: Setup) -> list[Request]:
    """Ends by length, by a stop token, and by whichever comes first."""
    warm = Sampling() if setup.accept.type.greedy_only else Sampling(temperature=1.0)
    stops = [frozenset(), frozenset({0}), frozenset({1, 2})]
    prompts = [(0, 1, 2), (3,), (2, 2, 1, 0, 3)]
    return [
        Request(prompt, warm, 3 + 7 * i, stop_token_ids=stop, seed=10 * i + j)
        for i, prompt in enumerate(prompts)
        for j, stop in enumerate(stops)
    ]


def run(engine: Engine, asked: list[Request]) -> tuple[list[Row], list[TokenEvent]]:
    rows = engine.start(asked)
    events = []
    while engine.batch.rows:
        events += engine.step()
    return rows, events


@pytest.mark.parametrize("setup", pairwise(), ids=str)
def test_counts_add_up(setup: Setup) -> None:
    rows, events = run(setup.engine(TableModel(TARGET), TableModel(DRAFT)), requests(setup))
    for row in rows:
        c = row.counts
        discarded = Stats(c, 1.0).num_discarded
        assert c.num_drafted == c.num_tokens - c.num_target_forwards + discarded + c.num_cut
        assert 0 <= c.num_accepted <= c.num_tested <= c.num_drafted
        own = [event for event in events if event.id == row.id]
        origins = Counter(origin for event in own for origin in event.origins)
        assert row.output == [token for event in own for token in event.tokens]
        assert c.num_tokens == len(row.output) == sum(origins.values())
        assert c.num_target_forwards == len(own)
        assert c.num_accepted == origins[Origin.ACCEPTED]
        assert c.num_cut == (own[-1].origins[-1] is Origin.ACCEPTED)
        assert [event.finish for event in own[:-1]] == [None] * (len(own) - 1)
        stopped = row.output[-1] in row.request.stop_token_ids
        assert own[-1].finish is (FinishReason.STOP if stopped else FinishReason.LENGTH)
        assert stopped or len(row.output) == row.request.max_new_tokens
        assert not set(row.output[:-1]) & row.request.stop_token_ids, "something follows a stop token"


@pytest.mark.parametrize("setup", [s for s in pairwise() if s.draft.type.uses_model], ids=str)
def test_forwards_are_counted_as_they_are_made(setup: Setup) -> None:
    target, draft = TableModel(TARGET), TableModel(DRAFT)
    asked = requests(setup)[5]
    rows, _ = run(setup.engine(target, draft), [asked])
    prefills = 1
    assert target.num_forwards == prefills * (len(asked.prompt) > 1) + rows[0].counts.num_target_forwards
    assert draft.num_forwards == prefills * (len(asked.prompt) > 1) + rows[0].counts.num_draft_forwards


def test_totals_are_sums_and_rates_are_ratios_of_sums() -> None:
    one, other = Counts(10, 4, 9, 8, 7, 6, 0), Counts(3, 3, 0, 0, 0, 0, 0)
    both = total([one, other])
    assert [getattr(both, f.name) for f in fields(Counts)] == [13, 7, 9, 8, 7, 6, 0]
    stats = Stats(both, 2.0)
    assert stats.block_efficiency == pytest.approx(13 / 7)
    assert stats.verification_rate == pytest.approx(7 / 13)
    assert stats.acceptance_rate == pytest.approx(6 / 7)
    assert stats.discard_rate == pytest.approx(2 / 13)
    assert stats.tokens_per_s == pytest.approx(6.5)
