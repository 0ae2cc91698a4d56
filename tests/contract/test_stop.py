"""Drafts that a device draws and ends by itself: as exact as others, and as long as the policy would have had them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from foretoken.accept.block import Block
from foretoken.costs import GivenCosts
from foretoken.draft.ahead import draft_until, rule
from foretoken.draft.model import ModelDrafter
from foretoken.engine import Engine
from foretoken.length.base import LengthPolicy
from foretoken.length.outlook import Outlook
from foretoken.length.renewal import Renewal
from foretoken.models.static_cache import bucket
from foretoken.prices import Prices
from foretoken.registry import find
from foretoken.request import Request, Sampling
from foretoken.shape.base import TreeShape
from foretoken.shape.chain import Chain
from foretoken.types import Batch, Counts, Draft
from tests.contract import drawing, outcomes
from tests.contract.drawing import AHEAD, DrawingTable, coarse_table
from tests.contract.engine_law import engine_law
from tests.contract.law import exact_law
from tests.contract.methods import Choice, Setup, choices, setups
from tests.contract.outcomes import distance
from tests.contract.table import TableModel, near, random_table

TARGET = random_table(5, 3)
WARM = Sampling(temperature=1.0)
LOSSLESS = [one for one in choices("accept") if one.type.lossless and not one.type.greedy_only]


class Until(ModelDrafter):
    """Drafts as it does on a device that is far away.

    Attributes:
        stopped: tokens that were wanted, and those that there was room for, of each row and step.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.stopped: list[tuple[int, int]] = []

    def draft(self, batch: Batch, length: LengthPolicy, shape: TreeShape, max_nodes: int) -> Draft:
        room = [min(row.room, max_nodes - 1, most) for row, most in zip(batch.rows, self.limits(batch), strict=True)]
        certain = all(row.request.sampling.greedy(self.temperature) for row in batch.rows)
        if not (stop := rule(self, batch, length, shape, room)):
            return super().draft(batch, length, shape, max_nodes)
        draft = draft_until(self, certain, batch, stop)
        assert draft.unseen is not None
        assert draft.prob is None
        self.stopped += zip(draft.unseen.drafted.tolist(), stop.room, strict=True)
        return draft


def looking(name: str, **options: Any) -> Choice:
    return Choice(find("length", name), {"most": AHEAD, **options})


STOPPING = [
    looking("confidence", threshold=0.5),
    looking("confidence", threshold=0.6, adaptive=True),
    *(looking("proxy", threshold=0.6, signal=signal) for signal in ("prob", "top1", "margin", "entropy")),
    looking("specdec++", threshold=0.6),
    looking("specdec++", threshold=0.9, newest=True),
    looking("specdec++", threshold=0.1, least=2),
]


def unseeded(request: Request) -> Request:
    return replace(request, repeats=False)


def law_is_exact(length: Choice, rule: Choice, words: int, request: Request) -> None:
    (setup,) = setups(draft=[Choice(Until)], length=[length], shape=choices("shape")[:1], accept=[rule])
    target, draft = random_table(5, words), coarse_table(6, words)
    # One by one: how many numbers are looked at depends on the other rows.
    law = engine_law(setup, TableModel(target), DrawingTable(draft), request, width=1)
    assert distance(law, exact_law(target, request)) < 1e-9


@pytest.mark.parametrize("stops", [(), (1,)])
@pytest.mark.parametrize("rule", LOSSLESS, ids=str)
@pytest.mark.parametrize("length", [*STOPPING, looking("renewal", cost=0.3)], ids=str)
def test_the_law_is_the_targets(length: Choice, rule: Choice, stops: tuple[int, ...]) -> None:
    law_is_exact(length, rule, 3, unseeded(Request((0, 1), WARM, 3, stop_token_ids=frozenset(stops))))


@pytest.mark.parametrize("rule", LOSSLESS, ids=str)
def test_what_is_drawn_last_decides_nothing(rule: Choice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only from four tokens on would it show that a rule has seen the token it decides about."""
    for module in (outcomes, drawing):
        monkeypatch.setattr(module, "GRID", 2)
    law_is_exact(looking("confidence", threshold=0.6), rule, 3, unseeded(Request((0, 1), WARM, 4)))


REQUESTS = [
    Request((0, 1, 2), WARM, 40, seed=1),
    Request((2, 1), WARM, 55, seed=2),
    Request((2, 2, 1, 0), WARM, 30, seed=3),
]


def answered(engine: Engine, requests: Sequence[Request]) -> list[tuple[list[int], Counts]]:
    rows = engine.start([replace(one) for one in requests])
    while engine.batch.rows:
        engine.step()
    return [(row.output, row.counts) for row in rows]


def held_against(make: Any, requests: Sequence[Request]) -> list[tuple[int, int]]:
    """What a device wanted, and had room for, after checking that the policy itself says the same."""
    there = make(Until, DrawingTable)
    assert answered(there, requests) == answered(make(ModelDrafter, TableModel), requests)
    drafter: Until = there.drafter
    return drafter.stopped


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("length", STOPPING, ids=str)
def test_it_stops_where_the_policy_would(length: Choice, warm: bool) -> None:
    """Alone and in batches; texts show whether random numbers are spent as by tokens drawn one by one."""
    table = near(TARGET, 7)
    requests = [unseeded(one if warm else replace(one, sampling=Sampling())) for one in REQUESTS]

    def make(drafter: type[Any], kind: type[TableModel]) -> Engine:
        setup = Setup(Choice(drafter), length, Choice(Chain), Choice(Block))
        return setup.engine(TableModel(TARGET), kind(table))

    stopped = [pair for asked in ([requests[0]], requests) for pair in held_against(make, asked)]
    lengths = {wanted for wanted, room in stopped if room == AHEAD}
    assert len(lengths) > 1, "it stops early, and not always at the same depth"


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("cost", [0.05, 0.2, 0.4])
def test_so_does_the_renewal_rule_where_to_read_more_costs_nothing(cost: float, warm: bool) -> None:
    request = unseeded(Request((0, 1, 2), WARM if warm else Sampling(), 150, seed=1))

    def make(drafter: type[Any], kind: type[TableModel]) -> Engine:
        policy = Renewal(Renewal.Config(cost=cost, most=AHEAD))
        draft = drafter(None, kind(near(TARGET, 7)))
        return Engine(TableModel(TARGET), draft, policy, Chain(), Block())

    stopped = held_against(make, [request])
    assert {room for _, room in stopped} - {1, 2} == {AHEAD}, "it reads them in any case"
    print(cost, warm, {wanted for wanted, _ in stopped})


def test_where_more_is_dear_to_read_there_is_no_room_for_it() -> None:
    costs = GivenCosts(0.01, {1: 1.0, 2: 1.01, 3: 3.0, 4: 5.0})
    drafter = Until(None, DrawingTable(near(TARGET, 7)))
    engine = Engine(TableModel(TARGET), drafter, Renewal(Renewal.Config(most=AHEAD)), Chain(), Block(), costs=costs)
    answered(engine, [unseeded(Request((0, 1, 2), Sampling(), 60))])
    assert {room for _, room in drafter.stopped} == {1}


@pytest.mark.parametrize(
    ("chance", "draft", "step", "expected"),
    [
        (0.9, 0.02, 0.05, 15),  # sixteen are hardly dearer to read than eight
        (0.8, 0.02, 0.4, 7),
        (0.5, 0.02, 0.05, 7),  # so many are hardly ever accepted
        (0.5, 0.02, 0.1, 3),
        (0.5, 0.4, 0.3, 1),
        (0.9, 0.6, 0.0, 15),  # what costs nothing to read may be drawn where a draft is very sure
    ],
)
def test_room_is_as_many_as_pay_most_and_all_that_is_read_with_them(
    chance: float, draft: float, step: float, expected: int
) -> None:
    costs = GivenCosts(draft, {tokens: 1 + step * math.log2(bucket(tokens)) for tokens in range(1, 17)})
    outlook = Outlook(False, lambda price: (chance, 0.5))
    outlook.renew(Prices(costs))
    assert outlook.room(15, Prices(costs)) == expected
    hurdles = outlook.hurdles(15, Prices(costs))
    assert hurdles == pytest.approx([draft / (chance * 0.5)] * 15), "whatever is read"


def wants_rule(
    request: Request, *others: Request, temperature: float | None = None, can_stop: bool = True, context: int = 100
) -> bool:
    """Whether a device may draft for these requests together."""
    model = DrawingTable(near(TARGET, 7))
    model.can_stop = can_stop
    model.max_length = context
    drafter = Until(Until.Config(temperature), model)
    length = find("length", "confidence")(find("length", "confidence").Config(most=AHEAD))
    engine = Engine(TableModel(TARGET), drafter, length, Chain(), Block())
    engine.start([request, *others])
    engine.step()
    return bool(drafter.stopped)


def test_not_for_those_who_must_not_depend_on_their_neighbours_or_on_what_was_drafted() -> None:
    asked = Request((0, 1), WARM, 20, repeats=False)
    greedy = Request((0, 1), Sampling(), 20)
    assert wants_rule(asked)
    assert wants_rule(greedy)
    assert wants_rule(asked, asked)
    assert not wants_rule(asked, can_stop=False)
    assert not wants_rule(asked, context=2), "the draft's context is full"
    assert not wants_rule(asked, context=1), "the text has outgrown it"
    assert not wants_rule(replace(asked, repeats=True))
    assert not wants_rule(asked, replace(asked, repeats=True))
    assert not wants_rule(asked, greedy), "two temperatures"
    assert not wants_rule(asked, temperature=0.0), "point masses judged by sampling"
    assert not wants_rule(replace(asked, prompt=(1,))), "nothing before the root"
    assert not wants_rule(replace(asked, sampling=Sampling(temperature=1.0, top_k=2))), "more than a temperature"


def test_what_nobody_has_looked_at_is_seen_all_at_once() -> None:
    drafter = Until(None, DrawingTable(near(TARGET, 7)))
    length = find("length", "confidence")(find("length", "confidence").Config(threshold=0.5, most=AHEAD))
    engine = Engine(TableModel(TARGET), drafter, length, Chain(), Block())
    engine.start([replace(one, sampling=Sampling()) for one in REQUESTS])
    draft = drafter.draft(engine.batch, length, Chain(), 64)
    bound = AHEAD + 1
    assert list(draft.sizes) == [bound] * 3
    seen, (other,) = draft.near(torch.ones(2))
    assert other.tolist() == [1, 1]
    wanted = [count for count, _ in drafter.stopped]
    assert seen.unseen is None
    assert list(seen.sizes) == [count + 1 for count in wanted]
    assert list(seen.num_forwards) == wanted
    assert min(wanted) < AHEAD
    assert seen.prob is not None
    for b, count in enumerate(wanted):
        assert seen.prob[b][0] == 1
        assert all(0 < one <= 1 for one in seen.prob[b][: count + 1])
        assert seen.tokens[b, count + 1 :].tolist() == [0] * (AHEAD - count)
        assert seen.parents[b].tolist() == [0, *range(count), *[0] * (AHEAD - count)]
