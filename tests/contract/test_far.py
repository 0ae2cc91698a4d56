"""On a device that is far away: nothing is mixed up, the text stays the same, and the host waits for it rarely."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from foretoken.config import DEFAULTS
from foretoken.costs import GivenCosts
from foretoken.draft.ahead import draft_ahead
from foretoken.draft.model import ModelDrafter
from foretoken.length.base import LengthPolicy
from foretoken.models.disco_classifier import DiscoClassifier
from foretoken.registry import METHODS, find
from foretoken.request import Request, Sampling
from foretoken.shape.base import TreeShape
from foretoken.types import Batch, Draft
from tests.contract import methods
from tests.contract.adversaries import Relayed
from tests.contract.drawing import DrawingTable
from tests.contract.engine_law import engine_law
from tests.contract.far import FarDevice, FarModel, far
from tests.contract.law import exact_law
from tests.contract.methods import Choice, Setup, choices, setups
from tests.contract.outcomes import distance
from tests.contract.table import TableModel, near, random_table

TARGET = random_table(61, 6)
DRAFT = near(TARGET, 62)
BLOCK = Choice(find("accept", "block"))
WITH_MODEL = [choice for choice in choices("draft") if choice.type.uses_model]


LENGTHS = [Choice(find("length", name)) for name in sorted(METHODS["length"])]


SETUPS = list(setups(draft=WITH_MODEL[:1], length=LENGTHS))


@pytest.fixture(autouse=True)
def nets_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was trained for a model is where the model is."""
    untrained = methods.untrained

    def there(kind: Any, model: Any) -> Any:
        net = untrained(kind, model)
        moves = isinstance(model, FarModel) and not isinstance(net, DiscoClassifier)
        for part in net.modules() if moves else ():
            for held in (part._parameters, part._buffers):
                held.update({name: far(one.data) for name, one in held.items() if one is not None})
        return net

    monkeypatch.setattr(methods, "untrained", there)


def texts(setup: Setup, distant: bool, kind: type[TableModel], *requests: Request) -> list[list[int]]:
    models = [kind(TARGET), kind(DRAFT)]
    engine = setup.engine(*([FarModel(model) for model in models] if distant else models))
    rows = engine.start(list(requests))
    while engine.batch.rows:
        engine.step()
    return [row.output for row in rows]


class Ahead(ModelDrafter):
    """Drafts as it does on a device that is far away."""

    def draft(self, batch: Batch, length: LengthPolicy, shape: TreeShape, max_nodes: int) -> Draft:
        self._read_waiting()
        room = [min(row.room, most, max_nodes - 1) for row, most in zip(batch.rows, self.limits(batch), strict=True)]
        certain = all(row.request.sampling.greedy(self.temperature) for row in batch.rows)
        return draft_ahead(self, certain, batch, length, shape, room)


AHEAD = [choice for choice in LENGTHS if not choice.type.looks]
EXACT = list(setups(draft=[Choice(Ahead)], length=[*AHEAD, Choice(find("length", "fixed"), {"k": 2})]))
EXACT = [setup for setup in EXACT if setup.accept.type.lossless]


@pytest.mark.parametrize("stops", [(), (1,), (0, 2)])
@pytest.mark.parametrize("setup", EXACT, ids=str)
def test_drafting_ahead_is_exact(setup: Setup, stops: tuple[int, ...]) -> None:
    target, draft = random_table(21, 3), near(random_table(21, 3), 22)
    warm = Sampling() if setup.accept.type.greedy_only else Sampling(temperature=1.0)
    request = Request((0, 2, 1), warm, 3, stop_token_ids=frozenset(stops))
    neighbour = Request((2,), Sampling(), 6, stop_token_ids=frozenset(stops))
    law = engine_law(setup, TableModel(target), TableModel(draft), request, [neighbour])
    assert distance(law, exact_law(target, request)) < 1e-9


@pytest.mark.parametrize("kind", [TableModel, DrawingTable])
@pytest.mark.parametrize("setup", SETUPS, ids=str)
def test_texts_stay_the_same(setup: Setup, kind: type[TableModel]) -> None:
    warm = Sampling() if setup.accept.type.greedy_only else Sampling(temperature=1.0)
    asked = [Request((0, 2), warm, 12, seed=1), Request((3, 1, 4), Sampling(), 9), Request((5,), warm, 15, seed=2)]
    with FarDevice() as device:
        found = texts(setup, True, kind, *asked)
    assert device.waits
    assert not any(isinstance(token, Tensor) for text in found for token in text)
    assert found == texts(setup, False, kind, *asked)


def waits(
    length: Choice,
    sampling: Sampling,
    drafter: Choice = WITH_MODEL[0],
    kind: type[TableModel] = TableModel,
    rule: str = DEFAULTS["accept"],
    repeats: bool = True,
) -> list[list[str]]:
    """What the host waits for in each of some steps, the first ones left out."""
    setup = Setup(drafter, length, Choice(find("shape", "chain")), Choice(find("accept", rule)))
    steps = []
    with FarDevice() as device:
        engine = setup.engine(FarModel(kind(TARGET)), FarModel(kind(DRAFT)))
        stops = frozenset([6, 7])
        engine.start([Request((0, 2), sampling, 40, seed=1, stop_token_ids=stops, repeats=repeats)])
        for _ in range(5):
            device.waits.clear()
            engine.step()
            steps.append(list(device.waits))
    assert engine.batch.rows, "a step in which a request ends is another"
    return steps[2:]


@pytest.mark.parametrize("k", [0, 1, 4])
def test_a_greedy_step_of_a_length_known_beforehand_waits_once(k: int) -> None:
    for names in waits(Choice(find("length", "fixed"), {"k": k}), Sampling()):
        assert names == ["cpu"]


@pytest.mark.parametrize("length", AHEAD, ids=str)
def test_so_does_every_policy_that_does_not_look(length: Choice) -> None:
    for names in waits(length, Sampling()):
        assert names == ["cpu"]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_plain_decoding_waits_once(temperature: float) -> None:
    sampling = Sampling(temperature=temperature)
    for names in waits(Choice(find("length", "fixed")), sampling, Choice(find("draft", "none"))):
        assert names == ["cpu"]


def test_point_masses_are_judged_by_sampling_in_one_wait() -> None:
    likeliest = Choice(find("draft", "model"), {"temperature": 0.0})
    for names in waits(Choice(find("length", "fixed"), {"k": 3}), Sampling(temperature=1.0), likeliest):
        assert names == ["cpu"]


LOOKING: list[tuple[str, dict[str, Any]]] = [
    ("confidence", {"threshold": 0.0}),
    ("proxy", {"threshold": 1.0}),
    *(("proxy", {"threshold": 1.0, "signal": signal}) for signal in ("top1", "margin", "entropy")),
    ("disco", {"threshold": 0.0}),
    ("specdec++", {"threshold": 1.0}),
    ("renewal", {"cost": 0.0}),
]


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize(("name", "options"), LOOKING)
def test_a_policy_that_looks_waits_once_more_for_every_token(name: str, options: dict[str, Any], most: int) -> None:
    """That is for the token: whatever else the policy wants to know of it comes along."""
    for names in waits(Choice(find("length", name), {**options, "most": most}), Sampling()):
        assert names == ["cpu"] * (most + 1)


@pytest.mark.parametrize("rule", ["block", "rejection"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(("name", "options"), LOOKING)
def test_a_policy_that_looks_is_not_waited_for_where_it_can_say_when_to_stop(
    name: str, options: dict[str, Any], temperature: float, rule: str
) -> None:
    """Else it waits once for all tokens drawn in one go."""
    length = Choice(find("length", name), {**options, "most": 3})
    stops = length.type.stop is not LengthPolicy.stop
    assert stops or name == "disco"
    for names in waits(length, Sampling(temperature=temperature), kind=DrawingTable, rule=rule, repeats=False):
        assert names == ["cpu"] * (1 if stops else 2)


@pytest.mark.parametrize(("name", "options"), LOOKING)
def test_a_seed_waits_for_policies_that_look(name: str, options: dict[str, Any]) -> None:
    """What can be drawn unseen depends on its neighbours."""
    length = Choice(find("length", name), {**options, "most": 3})
    for names in waits(length, Sampling(temperature=1.0), kind=DrawingTable):
        assert len(names) == 2


class Told(GivenCosts):
    """What the engine says of its steps."""

    def __init__(self) -> None:
        super().__init__(0.2, {1: 1.0, 2: 1.2})
        self.steps: list[tuple[int, float, int, float]] = []

    def observe(self, rows: int, forwards: int, draft_s: float, tokens: int, verify_s: float) -> None:
        self.steps.append((forwards, draft_s, tokens, verify_s))


@pytest.mark.parametrize("name", ["fixed", "confidence"])
def test_the_time_of_a_step_that_is_waited_for_once_is_shared_as_costs_have_it(name: str) -> None:
    costs, options = Told(), {"k": 3} if name == "fixed" else {"threshold": 0.0, "most": 3}
    setup = Setup(WITH_MODEL[0], Choice(find("length", name), options), Choice(find("shape", "chain")), BLOCK)
    with FarDevice():
        engine = setup.engine(FarModel(DrawingTable(TARGET)), FarModel(DrawingTable(DRAFT)), costs=costs)
        engine.start([Request((0, 2), Sampling(), 40)])
        for _ in range(3):
            engine.step()
    for forwards, draft_s, tokens, verify_s in costs.steps:
        assert (forwards, tokens) == (3, 4)
        assert draft_s / verify_s == pytest.approx(3 * 0.2 / costs.verify_s(4))


def test_after_look_ups_the_model_drafts_unseen_and_its_row_learns_of_it() -> None:
    request = Request((0, 2, 1, 0, 2, 1, 0, 2), Sampling(), 40)
    setup = Setup(
        Choice(Relayed), Choice(find("length", "confidence"), {"most": 3}), Choice(find("shape", "chain")), BLOCK
    )
    found = []
    for distant in (True, False):
        models = [DrawingTable(TARGET), DrawingTable(DRAFT)]
        with FarDevice() as device:
            engine = setup.engine(*([FarModel(model) for model in models] if distant else models))
            (row,) = engine.start([request])
            while engine.batch.rows:
                device.waits.clear()
                engine.step()
                assert len(device.waits) == distant
        found.append((row.output, row.memory[engine.drafter], replace(row.counts, num_draft_forwards=0)))
    assert found[0] == found[1]


@pytest.mark.parametrize("rule", ["block", "rejection"])
@pytest.mark.parametrize("k", [1, 3])
def test_a_sampled_step_waits_once_more_for_every_token_and_once_to_accept(k: int, rule: str) -> None:
    for names in waits(Choice(find("length", "fixed"), {"k": k}), Sampling(temperature=1.0), rule=rule):
        assert len(names) == k + 1, names


@pytest.mark.parametrize("rule", ["block", "rejection"])
@pytest.mark.parametrize("k", [1, 3, 4, 6])
def test_a_draft_that_draws_by_itself_is_not_waited_for(k: int, rule: str) -> None:
    fixed = Choice(find("length", "fixed"), {"k": k})
    for names in waits(fixed, Sampling(), kind=DrawingTable):
        assert names == ["cpu"]
    for names in waits(fixed, Sampling(temperature=1.0), kind=DrawingTable, rule=rule):
        assert len(names) == 1, names
