"""Verdicts by hand: every rule on chains, on batches where each row meets another fate."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from foretoken.accept.base import AcceptanceRule, chain_law, chain_law_at
from foretoken.accept.block import Block
from foretoken.accept.greedy import Greedy
from foretoken.accept.rejection import Rejection
from foretoken.errors import GenerationError
from foretoken.types import Draft, Drawn, Verdict, chained
from tests.contract.outcomes import EveryOutcome, Script
from tests.contract.rule_law import check_verdict

V = 5
# Four rows: all kept, second token wrong, first token wrong, nothing drafted.
TOKENS = torch.tensor([[0, 1, 2, 3], [0, 1, 4, 3], [0, 4, 2, 0], [0, 0, 0, 0]])
SIZES = [4, 4, 3, 1]
WANTED = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]])  # what the target says after each node


def chain(tokens: Tensor, sizes: list[int], drawn: Drawn) -> Draft:
    """A chain per row; the drafter was sure of each token, unless nothing was drawn."""
    steps = torch.arange(tokens.shape[1])
    used = steps < torch.tensor(sizes)[:, None]
    q = torch.zeros(*tokens.shape, V, dtype=torch.float64)
    q[:, :-1].scatter_(-1, tokens[:, 1:, None], used[:, 1:, None].double())
    law, none = None if drawn is Drawn.POINT else q, [0] * len(sizes)
    return Draft(tokens, chained(*sizes), sizes, law, drawn, None, none)


def certain(tokens: Tensor) -> Tensor:
    """[B, N, V] float64. The target is sure of these tokens."""
    return torch.nn.functional.one_hot(tokens, V).double()


def judge(rule: AcceptanceRule, draft: Draft, p: Tensor) -> Verdict:
    """The only possible verdict, where nothing is left to chance."""
    scripts = [Script() for _ in p]
    verdict = rule.accept(draft, p, EveryOutcome(lambda b: scripts[b]))
    assert all(script.prob == 1 and not script.others for script in scripts), "something was left to chance"
    check_verdict(draft, verdict)
    return verdict


@pytest.mark.parametrize("drawn", [Drawn.POINT, Drawn.IID])
@pytest.mark.parametrize(("rule", "tested"), [(Rejection, [3, 2, 1, 0]), (Block, [3, 3, 2, 0]), (Greedy, [3, 2, 1, 0])])
def test_a_batch_of_four_fates(rule: type[AcceptanceRule], tested: list[int], drawn: Drawn) -> None:
    verdict = judge(rule(), chain(TOKENS, SIZES, drawn), certain(WANTED))
    assert verdict.counts == [3, 1, 0, 0]
    assert [list(path) for path in verdict.path] == [[1, 2, 3], [1], [], []]
    assert list(verdict.next_token) == [4, 2, 1, 1]
    assert list(verdict.recovered) == [False, True, True, False]
    assert list(verdict.tested) == tested


@pytest.mark.parametrize("drawn", [Drawn.POINT, Drawn.IID])
@pytest.mark.parametrize("rule", [Rejection, Block, Greedy])
def test_where_only_the_likeliest_token_counts_no_distribution_is_needed(
    rule: type[AcceptanceRule], drawn: Drawn
) -> None:
    """`match` comes to what `accept` does, for every chain over three tokens."""
    rows = list(itertools.product(range(3), repeat=6))
    tokens, wanted = (torch.tensor([row[at : at + 3] for row in rows]) for at in (0, 3))
    sizes = [at % 3 + 1 for at in range(len(rows))]
    draft = chain(tokens * (torch.arange(3) < torch.tensor(sizes)[:, None]), sizes, drawn)
    expected = judge(rule(), draft, certain(wanted))
    found = rule().match(draft, wanted.tolist(), torch.ones(wanted.shape).tolist())
    assert [list(path) for path in found.path] == [list(path) for path in expected.path]
    assert found.recovered == list(expected.recovered)
    assert list(found.next_token) == list(expected.next_token)
    check_verdict(draft, found)


@pytest.mark.parametrize("left", [torch.nan, torch.inf, 0.0])
def test_nothing_to_choose_from_is_reported_where_it_matters(left: float) -> None:
    draft = chain(TOKENS, SIZES, Drawn.POINT)
    mass = torch.ones(WANTED.shape).tolist()
    mass[1][2] = left  # behind the first token that is wrong
    Rejection().match(draft, WANTED.tolist(), mass)
    mass[0][1] = left
    with pytest.raises(GenerationError, match="no usable probabilities"):
        Rejection().match(draft, WANTED.tolist(), mass)


@pytest.mark.parametrize("rule", [Rejection, Block, Greedy])
def test_nothing_drafted_anywhere(rule: type[AcceptanceRule]) -> None:
    verdict = judge(rule(), Draft.root_only(torch.tensor([2, 3])), certain(torch.tensor([[4], [0]])))
    assert verdict.counts == list(verdict.tested) == [0, 0]
    assert list(verdict.next_token) == [4, 0]
    assert list(verdict.recovered) == [False, False]


@pytest.mark.parametrize("rule", [Rejection, Block])
def test_a_token_the_target_never_says_is_never_kept(rule: type[AcceptanceRule]) -> None:
    """p and q have no token in common, and both are undecided: whatever the dice say, the draft goes."""
    p = torch.tensor([[[0, 0, 0.5, 0.5, 0], [0.2] * 5]], dtype=torch.float64)
    q = torch.tensor([[[0.5, 0.5, 0, 0, 0], [0] * 5]], dtype=torch.float64)
    draft = Draft(torch.tensor([[0, 1]]), torch.zeros(1, 2).long(), [2], q, Drawn.IID, None, [0])
    script = Script()
    verdict = rule().accept(draft, p, EveryOutcome(lambda b: script))
    assert verdict.counts == [0]
    assert list(verdict.next_token) == [2]
    assert script.others == [(0, 3)]  # after "no", only the recovered token is left to chance: 2 or 3


def test_what_a_chain_was_drawn_from() -> None:
    """`q` where it exists, else a point mass per token; nothing after the last token, nor in padding."""
    p = torch.zeros(4, 4, V, dtype=torch.float64)
    looked_up, drawn = (chain(TOKENS, SIZES, kind) for kind in (Drawn.POINT, Drawn.IID))
    assert torch.equal(chain_law(looked_up, p), chain_law(drawn, p))
    law = chain_law(looked_up, p)
    assert law[1].argmax(-1)[:3].tolist() == [1, 4, 3]
    assert law.sum(-1).tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    for nodes in ([0, 1, 2, 0], [3, 2, 1, 0]):
        for draft in (looked_up, drawn):
            assert torch.equal(chain_law_at(draft, p, nodes), law[range(4), nodes])


# 0 ── 1 ── 3 ── 5          tokens: root 0; children 1 and 2; below 1: 3 and 4; below 3: 1
#  │    └── 4              (node numbers; tokens are in the list below)
#  └── 2
TREE_TOKENS, TREE_PARENTS = [0, 2, 1, 3, 4, 1], [0, 0, 0, 1, 1, 3]


@pytest.mark.parametrize(
    ("wanted", "path", "token", "recovered", "tested"),
    [
        ([2, 0, 0, 4, 0, 0], [1], 0, True, 4),  # node 1, then neither 3 nor 4
        ([2, 4, 0, 0, 3, 0], [1, 4], 3, False, 4),  # node 4 is a leaf: bonus
        ([2, 3, 0, 1, 0, 4], [1, 3, 5], 4, False, 5),  # the longest branch
        ([1, 0, 3, 0, 0, 0], [2], 3, False, 2),  # the second child of the root
        ([4, 0, 0, 0, 0, 0], [], 4, True, 2),  # nothing fits
    ],
)
@pytest.mark.parametrize("drawn", list(Drawn))
def test_the_greedy_walk_down_a_tree(
    drawn: Drawn, wanted: list[int], path: list[int], token: int, recovered: bool, tested: int
) -> None:
    draft = Draft(torch.tensor([TREE_TOKENS]), torch.tensor([TREE_PARENTS]), [6], None, drawn, None, [0])
    verdict = judge(Greedy(), draft, certain(torch.tensor([wanted])))
    assert [list(one) for one in verdict.path] == [path]
    assert (list(verdict.next_token), list(verdict.recovered)) == ([token], [recovered])
    assert list(verdict.tested) == [tested]


def test_greedy_takes_the_first_of_two_children_with_the_same_token() -> None:
    draft = Draft(torch.tensor([[0, 2, 2]]), torch.zeros(1, 3).long(), [3], None, Drawn.IID, None, [0])
    verdict = judge(Greedy(), draft, certain(torch.tensor([[2, 1, 3]])))
    assert [list(path) for path in verdict.path] == [[1]]
    assert list(verdict.next_token) == [1]
