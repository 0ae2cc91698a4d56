"""Would this suite notice? Each test plants a classical mistake and measures how far the output law moves."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from foretoken.accept.base import AcceptanceRule
from foretoken.accept.rejection import Rejection
from foretoken.models.prefill import prefill
from foretoken.registry import find
from foretoken.request import Request, Sampling
from foretoken.rng import Dice
from foretoken.types import Draft, Drawn, Verdict
from tests.contract.adversaries import Lenient
from tests.contract.engine_law import engine_law
from tests.contract.law import Probs, exact_law
from tests.contract.methods import Choice, Setup
from tests.contract.outcomes import EveryOutcome, Script, distance, every_outcome, law_of
from tests.contract.rule_law import Step, draw_iid, take_top
from tests.contract.table import TableModel, constant_table, random_table

TARGET, DRAFT = random_table(31, 3), random_table(32, 3)


def test_every_outcome_comes_with_its_probability() -> None:
    """Two coins and a die, by hand; a coin of probability 1 is no choice."""

    def play(scripts: list[Script]) -> list[tuple[bool, bool, int]]:
        rng = EveryOutcome(lambda b: scripts[b])
        rows = range(len(scripts))
        coins = [(rng.coin(b, 0.25), rng.coin(b, 1.0)) for b in rows]
        faces = torch.tensor([[0.0, 0.5, 0.5]], dtype=torch.float64).repeat(len(rows), 1)
        die = rng.pick(faces, [True for _ in rows])
        return [(*coin, face) for coin, face in zip(coins, die, strict=True)]

    expected = {(False, True, 1): 0.375, (False, True, 2): 0.375, (True, True, 1): 0.125, (True, True, 2): 0.125}
    assert law_of(play, width=1) == expected
    assert law_of(play, width=2) == expected
    assert sum(1 for _ in every_outcome(play)) == 4


def test_a_lenient_rule_is_seen_through_the_whole_engine() -> None:
    setup = Setup(
        *(Choice(find(*m)) for m in (("draft", "model"), ("length", "fixed"), ("shape", "chain"))), Choice(Lenient)
    )
    request = Request((0, 1), Sampling(temperature=1.0), 3)
    law = engine_law(setup, TableModel(TARGET), TableModel(DRAFT), request)
    assert distance(law, exact_law(TARGET, request)) > 0.05


class PerLeaf(AcceptanceRule):
    """The shared-node mistake: a sample of the target per leaf instead of one per node; the best match wins."""

    lossless: ClassVar[bool] = False
    handles: ClassVar[frozenset[Drawn]] = frozenset({Drawn.POINT})

    def accept(self, draft: Draft, p: Tensor, rng: Dice) -> Verdict:
        everyone = [True] * len(p)
        samples = torch.tensor([rng.pick(p[:, 0], everyone) for _ in (1, 2)]).T
        matches = samples == draft.tokens[:, 1:]
        tie = matches[:, 0] == matches[:, 1]
        heads = torch.tensor([one and rng.coin(b, 0.5) for b, one in enumerate(tie.tolist())])
        first = torch.where(tie, heads, matches[:, 0])
        leaf = torch.where(first, 0, 1)
        chosen = matches.gather(1, leaf[:, None]).squeeze(1)
        end = torch.tensor(rng.pick(p[torch.arange(len(p)), leaf + 1], chosen.tolist()))
        token = torch.where(chosen, end, samples.gather(1, leaf[:, None]).squeeze(1))
        kept = chosen.tolist()
        path = [[node + 1] if one else [] for node, one in zip(leaf.tolist(), kept, strict=True)]
        return Verdict(path, [int(one) for one in kept], token.tolist(), [not one for one in kept])


def test_a_sample_per_leaf_has_the_known_bias() -> None:
    """p = (1/2, 3/10, 1/5), children 0 and 1: the law becomes (11/20, 33/100, 3/25), to the last digit."""
    p = constant_table([0.5, 0.3, 0.2])
    law = Step(PerLeaf(), Drawn.POINT, p, p, (2,)).law()
    first = [sum(prob for output, prob in law.items() if output[0] == token) for token in range(3)]
    assert first == pytest.approx([11 / 20, 33 / 100, 3 / 25], abs=1e-12)


def test_top_tokens_judged_as_draws_are_seen() -> None:
    step = Step(Rejection(), Drawn.IID, TARGET, DRAFT, (1, 1), draw=take_top)
    assert distance(step.law(), step.exact()) > 0.05


def drop_weak(script: Script, q: Probs, count: int) -> list[int]:
    """Draw, then keep the token only if it was likely: the decision comes after the draw."""
    return [token for token in draw_iid(script, q, count) if q[token] > 0.4]


def test_dropping_a_token_after_it_was_drawn_is_seen() -> None:
    step = Step(Rejection(), Drawn.IID, TARGET, DRAFT, (1, 1), draw=drop_weak)
    assert distance(step.law(), step.exact()) > 0.05


def test_drawing_with_another_temperature_than_declared_is_seen() -> None:
    def draw_warm(script: Script, q: Probs, count: int) -> list[int]:
        warm = [x**0.5 for x in q]
        return draw_iid(script, [x / sum(warm) for x in warm], count)

    step = Step(Rejection(), Drawn.IID, TARGET, DRAFT, (1, 1), draw=draw_warm)
    assert distance(step.law(), step.exact()) > 0.02


def test_a_table_model_notices_a_wrong_token_anywhere_in_its_cache() -> None:
    """The detector behind everything: one wrong entry in the cache, and the answer is another one."""
    model, context = TableModel(TARGET), [0, 2, 1, 1, 0]

    def answer(entries: list[int]) -> list[float]:
        cache = prefill(model, [entries])
        return model.forward(torch.tensor([[context[-1]]]), cache).logits[0, 0].tolist()

    assert answer(context[:-1]) == TARGET(context)
    for at in range(4):
        for wrong in {0, 1, 2} - {context[at]}:
            assert answer([*context[:at], wrong, *context[at + 1 : -1]]) != TARGET(context)
