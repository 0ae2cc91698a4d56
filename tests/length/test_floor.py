"""Whether all steps had better read many tokens, and what becomes of that."""

from __future__ import annotations

import pytest
import torch

from foretoken.accept.block import Block
from foretoken.costs import GivenCosts, ScaledCosts
from foretoken.curves import CALM
from foretoken.draft.suffix import Suffix
from foretoken.engine import Engine
from foretoken.length.floor import Floor
from foretoken.length.renewal import Renewal
from foretoken.prices import Prices
from foretoken.request import Request, Sampling
from foretoken.shape.chain import Chain
from tests.contract.table import TableModel, cycle_table
from tests.length.by_hand import batch

GOOD, BAD = [0.8, 0.7, 0.6], [0.05]


def padded(tokens: int) -> int:
    return next(width for width in (1, 4, 8, 16) if tokens <= width)


def costs(switch: float = 0.8) -> GivenCosts:
    """Four tokens take 1.3 plain steps among their like, and 1.6 more than that among plain ones."""
    return GivenCosts(0.1, {1: 1.0, 4: 1.3, 8: 2.6, 16: 5.2}, switch, padded)


def weighed(chances: list[float], told: GivenCosts, steps: int = 60) -> Floor:
    floor = Floor()
    for _ in range(steps):
        floor.weigh(chances, Prices(told))
    return floor


def test_a_floor_is_for_texts_that_can_be_looked_up() -> None:
    """Candidates bring 1.7 tokens a step: 2.08 per plain step with all steps that wide, 0.93 with each by itself."""
    assert weighed(GOOD, costs()).least == 4
    assert weighed(BAD, costs()).least == 1
    assert weighed([], costs()).least == 1


def test_it_is_as_wide_as_pays() -> None:
    told = GivenCosts(0.1, {1: 1.0, 4: 1.3, 8: 1.4, 16: 1.5}, 0.8, padded)
    assert weighed([0.9] * 9, told).least == 8  # no step has to read more
    assert weighed(GOOD, told).least == 4


def test_where_a_change_of_width_costs_nothing_there_is_none() -> None:
    assert costs(0.0).widths == ()
    assert weighed(GOOD, costs(0.0)).least == 1
    # What is read along with every node would have to be padded as well.
    assert ScaledCosts(costs(), reads=2).widths == ()
    assert ScaledCosts(costs()).widths == costs().widths == (4, 8, 16)


def test_a_text_that_changes_loses_its_floor() -> None:
    floor = weighed(GOOD, costs())
    for _ in range(120):
        floor.weigh(BAD, Prices(costs()))
    assert floor.least == 1


def test_what_steps_really_bring_counts() -> None:
    for tokens, least in ((2, 4), (1, 1)):
        floor = weighed(GOOD, costs())
        for _ in range(60):
            floor.weigh(GOOD, Prices(costs()))
            floor.count(tokens, 1.3)
            if floor.least == 1:
                break
        assert floor.least == least


def test_the_first_steps_of_a_floor_find_cold_caches() -> None:
    floor = weighed(GOOD, costs())
    floor.least, floor._since = 4, 0
    before = floor._real[1].rate
    for steps in [9.0] * CALM:
        floor.weigh(GOOD, Prices(costs()))
        floor.count(2, steps)
    for _ in range(2 * 9):
        floor.weigh(GOOD, Prices(costs()))
    assert floor._real[1].rate == before


def test_it_is_better_than_a_rest_where_it_is_faster_than_plain_decoding() -> None:
    policy, rows = Renewal(), batch(1)
    rows.costs = costs()
    pace = policy._pace(rows.rows[0], known=True)
    price = policy._prices(rows.rows[0], rows, 1)
    for chances, least in ((BAD, 1), (GOOD, 4)):
        pace._floor = weighed(chances, costs())
        pace._floor.least, pace.rest = 1, 0
        pace._pause(1.0, price)
        assert (pace._floor.least, pace.rest > 0) == (least, least == 1)
    pace._pause(1.0, price._replace(rows=2))  # several rows have no floor
    assert pace.rest > 0


def test_a_floor_is_for_a_request_alone() -> None:
    policy, rows = Renewal(), batch(2)
    for row in rows.rows:
        policy._pace(row, known=True)._floor.least = 4
    assert policy.least(rows) == 1
    (row, _) = rows.rows
    rows.rows[:] = [row]
    assert policy.least(rows) == 4
    policy._pace(row, known=True).resting = True
    assert policy.least(rows) == 1
    policy._pace(row, known=True).resting = False
    policy._apart = 3  # steps of plain decoding, to time them
    assert policy.least(rows) == 1


def test_candidates_that_are_read_in_any_case_are_taken() -> None:
    policy, rows = Renewal(), batch(1)
    rows.costs = costs()
    pace = policy._pace(rows.rows[0], known=True)
    assert policy.choose(rows, [[0.1, 0.1]]) == [0]
    pace._floor = weighed(GOOD, costs())
    assert policy.choose(rows, [[0.1, 0.1]]) == [2]
    assert policy.choose(rows, [[]]) == [0]
    assert policy.choose(rows, [[0.1] * 4]) == [3]  # a fourth one would not be free


@torch.inference_mode()
@pytest.mark.parametrize("prompt", [(0, 1, 2, 0, 1, 2), (2,)], ids=["looked up", "nothing known"])
def test_steps_are_as_wide_as_the_floor_and_no_wider_than_allowed(prompt: tuple[int, ...]) -> None:
    for most, nodes in ((64, 8), (3, 3)):
        policy = Renewal()
        model = TableModel(cycle_table(3), max_length=20)
        engine = Engine(model, Suffix(Suffix.Config(1)), policy, Chain(), Block(), costs=costs(), max_nodes=most)
        (row,) = engine.start([Request(prompt, Sampling(), 14, repeats=False)])
        policy._pace(row, known=True)._floor.least = 8
        draft, _ = engine._draft()
        assert draft.tokens.shape == draft.parents.shape == (1, nodes)
        assert draft.num_read == nodes
        while engine.batch.rows:  # to the end of the context, which padding passes
            engine.step()
        assert row.output == [(prompt[-1] + 1 + i) % 3 for i in range(14)]
