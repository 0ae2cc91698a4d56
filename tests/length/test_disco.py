"""DISCO stops after the token its classifier doubts, and what the classifier sees is what the draft said."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import foretoken
from foretoken.engine import Engine
from foretoken.errors import ConfigError, ModelError
from foretoken.length.base import LengthPolicy
from foretoken.length.disco import Disco
from foretoken.length.fixed import Fixed
from foretoken.models.disco_classifier import DEPTH, ClassifierShape, DiscoClassifier
from foretoken.models.predictor import TEMPERATURE
from foretoken.request import Request, Sampling
from foretoken.types import Batch, Continuation, Draft, Frontier, Verdict
from tests.contract.methods import Choice, Setup
from tests.contract.table import TableModel, near, random_table
from tests.length import by_hand

TARGET = random_table(31, 4)
DRAFT = near(TARGET, 32)
LAW = [0.5, 0.25, 0.125, 0.125]  # entropy 1.75 ln 2


class Says(DiscoClassifier):
    """A classifier that answers as it is told, whatever it sees."""

    def __init__(self, answer: Callable[[Frontier, Batch], list[float]]) -> None:
        super().__init__()
        self._answer = answer

    def judge(self, frontier: Frontier, batch: Batch) -> list[float]:
        return [1.0] * len(batch.rows) if frontier.logits is None else self._answer(frontier, batch)


class Records:
    """Forwards to a policy, and keeps what each step drafted and accepted."""

    def __init__(self, policy: LengthPolicy) -> None:
        self.policy, self.steps = policy, []

    def __getattr__(self, name: str) -> object:
        return getattr(self.policy, name)

    def observe(self, batch: Batch, draft: Draft, verdict: Verdict) -> None:
        self.steps.append((draft.sizes[0] - 1, verdict.counts[0]))


def steps(policy: LengthPolicy) -> list[tuple[int, int]]:
    """(drafted, accepted) of every step of one greedy answer."""
    one = engine(policy)
    one.length = records = Records(policy)  # type: ignore[assignment]
    one.start([Request((0, 1, 2), Sampling(), 60)])
    while one.batch.rows:
        one.step()
    return records.steps


def engine(policy: LengthPolicy) -> Engine:
    from foretoken.accept.rejection import Rejection
    from foretoken.draft.model import ModelDrafter
    from foretoken.shape.chain import Chain

    setup = Setup(Choice(ModelDrafter), Choice(Fixed), Choice(Chain), Choice(Rejection))
    made = setup.engine(TableModel(TARGET), TableModel(DRAFT))
    made.length = policy
    return made


def test_a_classifier_that_always_says_yes_is_a_fixed_length() -> None:
    yes = Says(lambda frontier, batch: [1.0] * len(batch.rows))
    assert steps(Disco(Disco.Config(most=4), yes)) == steps(Fixed(Fixed.Config(k=4)))


def test_a_classifier_that_always_says_no_drafts_one_token() -> None:
    no = Says(lambda frontier, batch: [0.0] * len(batch.rows))
    assert {drafted for drafted, _ in steps(Disco(None, no))} == {0, 1}  # 0 where no more fits


def test_an_oracle_discards_at_most_the_token_that_ends_a_round() -> None:
    """Right about every token, it never drafts behind one that will be rejected."""

    def right(frontier: Frontier, batch: Batch) -> list[float]:
        text = list(batch.rows[0].tokens)
        for _ in range(frontier.depth[0][0]):
            mine, target = DRAFT(text), TARGET(text)
            text.append(mine.index(max(mine)))
        return [float(target.index(max(target)) == text[-1])]

    found = steps(Disco(Disco.Config(most=6), Says(right)))
    assert all(drafted - accepted <= 1 for drafted, accepted in found)
    assert any(drafted > accepted for drafted, accepted in found)
    assert any(accepted > 1 for _, accepted in found)
    assert sum(d - a for d, a in steps(Fixed(Fixed.Config(k=6)))) > len(found)


def leaf(depth: int, temperature: float = 0.0) -> tuple[Frontier, Batch]:
    batch = by_hand.batch(1)
    batch.rows[0].request = Request((0,), Sampling(temperature=temperature))
    law = torch.tensor([[LAW]], dtype=torch.float64)
    drawn = Continuation(torch.tensor([[2]]), law[..., 2], law.log() + 40, None, None)
    return Frontier([[depth]], [[LAW[2]]], [[True]], drawn), batch


def test_features_by_hand() -> None:
    """Top probabilities (missing ones 0), the token's own, entropy, log of the depth, temperature."""
    frontier, _ = leaf(3)
    net = DiscoClassifier(ClassifierShape(top=6))
    assert frontier.logits is not None
    seen = net.describe(frontier.logits, *map(torch.tensor, (frontier.prob, frontier.depth, [[0.7]])))
    expected = [*LAW, 0, 0, 0.125, 1.75 * math.log(2), math.log(3), 0.7]
    assert seen.tolist() == [[pytest.approx(expected, abs=1e-5)]]
    assert (expected[DEPTH], expected[TEMPERATURE]) == (math.log(3), 0.7)
    assert net.heat(torch.tensor([0.0, 1.0, 50.0])).tolist() == [0.0, 1.0, 2.0]


def test_what_cannot_be_drawn_is_no_reason_for_nan() -> None:
    logits = torch.tensor([[0.0, -torch.inf, -torch.inf]])
    seen = DiscoClassifier(ClassifierShape(2)).describe(logits, torch.ones(1), torch.ones(1).long(), torch.zeros(1))
    assert seen.tolist() == [[1.0, 0.0, 1.0, 0.0, 0.0, 0.0]]


def test_a_probability_equal_to_the_threshold_goes_on_and_depth_and_temperature_are_told() -> None:
    torch.manual_seed(1)
    net = DiscoClassifier().requires_grad_(False)
    answers = []
    for depth, temperature in ((1, 0.0), (2, 0.0), (2, 1.0)):
        frontier, batch = leaf(depth, temperature)
        answers += net.judge(frontier, batch)
        for threshold, more in ((answers[-1], True), (answers[-1] + 1e-4, False)):
            policy = Disco(Disco.Config(threshold=threshold), net)
            assert policy.grow(frontier, batch) == [[more]]
    assert len(set(answers)) == 3


def test_the_root_is_not_judged_and_most_wins() -> None:
    no = Says(lambda frontier, batch: [0.0] * len(batch.rows))
    assert Disco(None, no).grow(by_hand.frontier([0, 0]), by_hand.batch(2)) == [[True], [True]]
    assert Disco(Disco.Config(most=0), no).grow(by_hand.frontier([0]), by_hand.batch(1)) == [[False]]


def test_a_classifier_is_required_and_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="needs a classifier"):
        Disco()
    for bad in ({"threshold": 1.5}, {"most": -1}):
        with pytest.raises(ConfigError):
            Disco.Config(**bad)  # type: ignore[arg-type]


def test_a_classifier_survives_its_file_and_refuses_another_draft(tmp_path: Path) -> None:
    net = DiscoClassifier(ClassifierShape(5, 7), "this draft", {"note": "made here"})
    net.shift.fill_(0.3)
    path = tmp_path / net.file_name
    net.save(path)
    again = DiscoClassifier.load(path, "this draft")
    seen = torch.rand(3, 9)
    assert torch.equal(again(seen), net(seen))
    assert (again.card, (tmp_path / "disco.card.json").read_text()) == (net.card, '{\n "note": "made here"\n}\n')
    with pytest.raises(ModelError, match="another draft"):
        DiscoClassifier.load(path, "that draft")
    with pytest.raises(ModelError, match="there is no DISCO classifier"):
        DiscoClassifier.load(tmp_path / "none.safetensors", "this draft")
    head = Path(foretoken.__file__).parent / "data/models/pair/draft/acceptance_head.safetensors"
    with pytest.raises(ModelError, match="is no DISCO classifier"):
        DiscoClassifier.load(head, "this draft")
