"""Confidence: go on while the draft is sure of its last token; the token it was not sure of is submitted as well."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
import torch

from foretoken.accept.rejection import Rejection
from foretoken.draft.model import ModelDrafter
from foretoken.engine import Engine
from foretoken.errors import ConfigError
from foretoken.length.confidence import Confidence, roc_threshold
from foretoken.request import Request, Sampling
from foretoken.shape.chain import Chain
from foretoken.types import Draft
from tests.contract.table import DIGESTS, Table, TableModel
from tests.length.by_hand import batch, finished, frontier

Samples = list[tuple[float, bool]]


def grows(policy: Confidence, depths: list[int], probs: list[float]) -> list[bool]:
    return [more for (more,) in policy.grow(frontier(depths, probs), batch(len(depths)))]


def test_it_goes_on_at_the_threshold_and_stops_below() -> None:
    policy = Confidence(Confidence.Config(threshold=0.4))
    assert grows(policy, [1, 1, 1, 1], [0.41, 0.4, 0.39, 0.0]) == [True, True, False, False]


def test_each_token_is_judged_by_itself() -> None:
    """Not the product of all so far: 0.5 x 0.5 is below the threshold, 0.5 is not."""
    assert grows(Confidence(Confidence.Config(threshold=0.4)), [2], [0.5]) == [True]


def test_the_root_is_always_sure_and_the_bound_always_holds() -> None:
    policy = Confidence(Confidence.Config(threshold=1.0, most=3))
    assert grows(policy, [0, 2, 3, 4], [1.0, 1.0, 1.0, 1.0]) == [True, True, False, False]
    assert grows(Confidence(Confidence.Config(most=0)), [0], [1.0]) == [False]


def fading(certainty: list[float]) -> Table:
    """Four tokens in a ring, each followed by the next with a probability of its own."""
    logits = torch.zeros(5 * 4 * DIGESTS, 4, dtype=torch.float64)
    for line in range(len(logits)):
        own = line // DIGESTS % 4
        logits[line] = torch.tensor((1 - certainty[own]) / 3, dtype=torch.float64).log()
        logits[line, (own + 1) % 4] = math.log(certainty[own])
    return Table(logits)


def drafts(policy: Confidence, table: Table, sampling: Sampling) -> Draft:
    """The first draft after token 0."""
    drafter = ModelDrafter(model=TableModel(table))
    engine = Engine(TableModel(table), drafter, policy, Chain(), Rejection())
    engine.start([Request((0,), sampling, 30)])
    return drafter.draft(engine.batch, policy, engine.shape, 64)


@pytest.mark.parametrize(("threshold", "drafted"), [(0.95, 1), (0.85, 2), (0.7, 3), (0.5, 20)])
def test_the_token_that_was_not_sure_is_submitted(threshold: float, drafted: int) -> None:
    """After 0 come tokens of probability 0.9, 0.8, 0.6, 0.97, 0.9, ...: the first below the threshold is the last."""
    policy = Confidence(Confidence.Config(threshold=threshold))
    draft = drafts(policy, fading([0.9, 0.8, 0.6, 0.97]), Sampling())
    assert draft.sizes == [drafted + 1]
    assert draft.tokens[0, : drafted + 1].tolist() == [i % 4 for i in range(drafted + 1)]
    assert draft.num_forwards == [drafted]


def test_the_probability_is_the_drafts_own_before_any_sampling_parameter() -> None:
    """At temperature 0 every drawn token has probability 1; how sure the draft was is another matter."""
    table = fading([0.9, 0.8, 0.6, 0.97])
    policy = Confidence(Confidence.Config(threshold=0.7))
    cold, filtered = (drafts(policy, table, s) for s in (Sampling(), Sampling(temperature=0.5, top_k=1)))
    for draft in (cold, filtered):
        assert draft.prob is not None
        assert draft.prob[0] == pytest.approx([1, 0.9, 0.8, 0.6])


def by_brute_force(samples: Samples, otherwise: float) -> float:
    """Try every probability that occurred as a threshold, from the highest down; keep the first of the best."""
    kept = [prob for prob, accepted in samples if accepted]
    lost = [prob for prob, accepted in samples if not accepted]
    if len(samples) <= 5 or not kept or not lost:
        return otherwise

    def cost(threshold: float) -> Fraction:
        false_positives = Fraction(sum(prob >= threshold for prob in lost), len(lost))
        false_negatives = Fraction(sum(prob < threshold for prob in kept), len(kept))
        return false_positives + 3 * false_negatives

    return min(sorted({prob for prob, _ in samples}, reverse=True), key=cost)


@pytest.mark.parametrize("seed", range(60))
def test_the_adapted_threshold_equals_a_brute_force_scan(seed: int) -> None:
    """Random logs, half of them on a coarse grid so that equal probabilities and equal costs are common."""
    dice = random.Random(seed)
    samples = []
    for _ in range(dice.randrange(0, 40)):
        prob = dice.randrange(11) / 10 if seed % 2 else dice.random()
        samples.append((prob, dice.random() < prob))
    found = roc_threshold(samples, 0.4)
    assert found == by_brute_force(samples, 0.4)
    assert 0 <= found <= 1


@pytest.mark.parametrize(
    ("samples", "threshold"),
    [
        ([], 0.4),
        ([(0.9, True)] * 3 + [(0.1, False)] * 2, 0.4),  # five are too few
        ([(0.9, True)] * 3 + [(0.1, False)] * 3, 0.9),  # six are enough
        ([(0.9, True)] * 20, 0.4),  # one outcome alone says nothing
        ([(0.1, False)] * 20, 0.4),
        ([(0.2, True)] * 5 + [(0.8, False)], 0.2),  # accepted below the rejected: missing them costs three times
        ([(0.5, True), (0.5, False)] * 4, 0.5),
        ([(0.9, True)] * 4 + [(0.6, True), (0.7, False), (0.3, False)], 0.6),  # costs 1/2, and 0.9 costs 3/5
    ],
)
def test_thresholds_by_hand(samples: Samples, threshold: float) -> None:
    assert roc_threshold(samples, 0.4) == threshold


def test_of_equal_costs_the_highest_threshold_wins() -> None:
    """0.9 misses a third of the accepted, times three; 0.6 lets in all of the rejected: both cost 1."""
    assert roc_threshold([(0.9, True), (0.9, True), (0.6, True), (0.6, False)] * 2, 0.4) == 0.9


def test_it_learns_from_tokens_up_to_the_first_rejection_only() -> None:
    """Tokens after a rejection were never judged on their own merit."""
    policy, rows = Confidence(Confidence.Config(adaptive=True)), batch(1)
    probs = torch.tensor([[1.0, 0.9, 0.3, 0.8, 0.7]], dtype=torch.float64)
    policy.observe(rows, *finished([4], [1], probs))
    threshold, samples = rows.rows[0].memory[policy]
    assert samples == [(0.9, True), (0.3, False)]
    assert threshold == Confidence.Config().threshold
    policy.observe(rows, *finished([4], [4], probs))
    threshold, samples = rows.rows[0].memory[policy]
    assert samples == [(0.9, True), (0.3, False), (0.9, True), (0.3, True), (0.8, True), (0.7, True)]
    assert threshold == by_brute_force(samples, 0.4) == 0.7


def test_every_row_adapts_by_itself() -> None:
    policy, rows = Confidence(Confidence.Config(threshold=0.4, adaptive=True)), batch(3)
    probs = torch.tensor([[1.0, 0.9, 0.8, 0.5]] * 3, dtype=torch.float64)
    for _ in range(3):
        policy.observe(rows, *finished([3, 3, 0], [2, 0, 0], probs))
    thresholds = [row.memory[policy][0] for row in rows.rows]
    assert thresholds == [0.8, 0.4, 0.4]
    at = frontier([1, 1, 1], [0.6, 0.6, 0.6])
    assert policy.grow(at, rows) == [[False], [True], [True]]


def test_without_adaptive_nothing_is_remembered() -> None:
    policy, rows = Confidence(), batch(1)
    policy.observe(rows, *finished([3], [1], torch.ones(1, 4)))
    assert policy not in rows.rows[0].memory


@pytest.mark.parametrize("options", [{"threshold": -0.1}, {"threshold": 1.1}, {"threshold": math.nan}, {"most": -1}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="cannot be"):
        Confidence.Config(**options)  # type: ignore[arg-type]
