"""With one look at the device: the verdict that a rule comes to by many, from the same random numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from foretoken.accept.base import AcceptanceRule, chain_verdict
from foretoken.accept.block import Block, joint_ratio
from foretoken.accept.points import Only
from foretoken.accept.rejection import Rejection
from foretoken.errors import GenerationError
from foretoken.request import Request
from foretoken.rng import Dice, SeededRng
from foretoken.tokenizer import TextPieces
from foretoken.types import Draft, Drawn, Row, Unseen, Verdict, chained
from tests.contract.far import FarDevice, far

V = 7
SIZES = [4, 1, 3, 2]


def dice(seed: int) -> SeededRng:
    rows = [Row(b, Request((0,), seed=4 * seed + b), TextPieces(lambda ids: ""), 99, [0]) for b in range(len(SIZES))]
    return SeededRng(rows, "accept")


def drafted(seed: int) -> tuple[Draft, torch.Tensor]:
    """Chains from a random law, and the target's, which is not far from it and has impossible tokens, too."""
    chance = torch.Generator().manual_seed(seed)
    scores = torch.randn(len(SIZES), max(SIZES), V, generator=chance)
    q = scores.softmax(-1)
    p = (scores + torch.randn(scores.shape, generator=chance)).softmax(-1)
    p = torch.where(p < 0.05, 0.0, p)
    p = p / p.sum(-1, keepdim=True)
    drawn = torch.multinomial(q[:, :-1].reshape(-1, V), 1, generator=chance).reshape(len(SIZES), -1)
    used = torch.arange(max(SIZES)) < torch.tensor(SIZES)[:, None]
    tokens = torch.cat([torch.zeros(len(SIZES), 1, dtype=torch.int64), drawn], 1) * used
    law = torch.zeros_like(q)
    law[:, :-1] = q[:, :-1] * used[:, 1:, None]
    return Draft(tokens, chained(*SIZES), SIZES, law, Drawn.IID, None, [0] * len(SIZES), chain=True), p


def distant(
    rule: AcceptanceRule, draft: Draft, p: torch.Tensor, rng: Dice, unseen: bool = False
) -> tuple[Verdict, int]:
    """Its verdict on a device that is far away, and how often the host waited."""
    assert draft.q is not None
    there = replace(draft, q=far(draft.q))
    if unseen:
        most, prob = max(draft.sizes), torch.arange(1.0, 1 + draft.tokens[:, 1:].numel()).reshape(len(p), -1)
        drafted = Unseen(far(torch.tensor(draft.sizes) - 1), far(prob))
        there = replace(there, tokens=far(draft.tokens), sizes=[most] * len(p), num_forwards=[most] * len(p))
        there = replace(there, parents=chained(*there.sizes), unseen=drafted)
    with FarDevice() as device:
        near, verdict = rule.settle(there, far(p), rng)
    assert list(near.sizes) == list(draft.sizes)
    if unseen:
        assert list(near.num_forwards) == [size - 1 for size in draft.sizes]
        assert near.prob == [[1.0, *row] for row in prob.tolist()]
        assert torch.equal(near.parents, draft.parents)
    return verdict, len(device.waits)


@pytest.mark.parametrize("rule", [Rejection(), Block()], ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("rows", [[True] * 4, [True, False, True, False]])
@pytest.mark.parametrize("unseen", [False, True])
def test_the_verdict_and_what_is_left_of_the_random_numbers_are_the_same(
    rule: AcceptanceRule, rows: list[bool], unseen: bool
) -> None:
    counts = set()
    for seed in range(200):
        draft, p = drafted(seed)
        one, other = dice(seed), dice(seed)
        expected = rule.accept(draft, p, Only(one, rows))
        found, waits = distant(rule, draft, p, Only(other, rows), unseen)
        assert waits == 1
        for b in (b for b, mine in enumerate(rows) if mine):
            for part in ("path", "tested", "next_token", "recovered"):
                assert getattr(found, part)[b] == getattr(expected, part)[b], (seed, b, part)
            counts.add((b, found.counts[b]))
        assert torch.equal(one.peek(3), other.peek(3)), seed
    assert len(counts) == sum(size for size, mine in zip(SIZES, rows, strict=True) if mine), "every fate came up"


class Nothing:
    """Keeps nothing."""

    def accept(self, draft: Draft, p: torch.Tensor, rng: Dice) -> Verdict:
        return chain_verdict([size - 1 for size in draft.sizes], [0] * len(p), [6] * len(p))


@pytest.mark.parametrize("rule", [Rejection, Block])
def test_a_rule_made_of_it_has_its_own_verdict(rule: type[AcceptanceRule]) -> None:
    other = type("Other", (Nothing, rule), {})
    for one, waits, said in ((rule, 1, False), (other, 0, True)):
        verdict, waited = distant(one(), *drafted(3), dice(3))
        assert (waited, list(verdict.next_token) == [6] * len(SIZES)) == (waits, said)


@pytest.mark.parametrize("rule", [Rejection(), Block()], ids=lambda rule: type(rule).__name__)
def test_a_node_that_does_not_matter_may_be_unusable(rule: AcceptanceRule) -> None:
    draft, p = drafted(0)
    p[1, 1:] = torch.nan  # behind a root without candidates
    distant(rule, draft, p, dice(0))
    p[1, 0] = torch.nan
    with pytest.raises(GenerationError, match="no usable probabilities"):
        distant(rule, draft, p, dice(0))


def test_the_joint_ratio_needs_no_loop() -> None:
    p = torch.tensor([[0.2, 0.6, 0.3, 0.0, 0.9], [0.5, 0.1, 0.4, 0.2, 0.0]], dtype=torch.float64)
    q = torch.tensor([[0.4, 0.5, 0.1, 0.2, 0.1], [0.5, 0.2, 0.6, 0.1, 0.0]], dtype=torch.float64)
    expected = [[1, 0.5, 0.6, 1, 0, 0], [1, 1, 0.5, 1 / 3, 2 / 3, 0]]
    assert torch.allclose(joint_ratio(p, q), torch.tensor(expected, dtype=torch.float64))
