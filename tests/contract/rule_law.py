"""The law of one step of an acceptance rule, with no engine around it: draw a draft, judge it, look at the tokens.

The first K+1 tokens after the root, K the deepest a draft can get, decide everything: a rule is exact when what it
emits, continued by the target, has the target's law over those tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from foretoken.accept.base import AcceptanceRule
from foretoken.request import Request, Sampling
from foretoken.types import Draft, Drawn, Verdict
from tests.contract.law import Probs, exact_law, softmax
from tests.contract.outcomes import EveryOutcome, Script, every_outcome
from tests.contract.table import Table

PROMPT = (0, 1)
DrawChildren = Callable[[Script, Probs, int], list[int]]
StopRule = Callable[[Sequence[int], float], bool]


def draw_iid(script: Script, q: Probs, count: int) -> list[int]:
    """Independent draws; repeats stay."""
    return [script.choose(q) for _ in range(count)]


def draw_distinct(script: Script, q: Probs, count: int) -> list[int]:
    """Draws without replacement, in draw order."""
    children: list[int] = []
    for _ in range(min(count, sum(x > 0 for x in q))):
        left = [0.0 if token in children else x for token, x in enumerate(q)]
        children.append(script.choose([x / sum(left) for x in left]))
    return children


def take_top(script: Script, q: Probs, count: int) -> list[int]:
    """The most likely tokens: nothing is drawn."""
    return sorted(range(len(q)), key=lambda token: -q[token])[:count]


DRAW: dict[Drawn, DrawChildren] = {Drawn.IID: draw_iid, Drawn.DISTINCT: draw_distinct, Drawn.POINT: take_top}

# Given the drafted path and the drafter's probability of its last token: stop here?
STOP_RULES: dict[str, StopRule] = {
    "never": lambda path, prob: False,
    "after token 0": lambda path, prob: path[-1] == 0,
    "by parity": lambda path, prob: (path[-1] + len(path)) % 2 == 0,
    "when unsure": lambda path, prob: prob < 0.5,
}


@dataclass(frozen=True)
class Step:
    """One drafting and judging, to be enumerated.

    Attributes:
        widths: children per node by depth; (1, 1) is a chain of two.
        draw: how children are really chosen, when that is not what `drawn` says.
        temperature: 0 turns the target's law into a point mass.
    """

    rule: AcceptanceRule
    drawn: Drawn
    target: Table
    draft: Table
    widths: tuple[int, ...]
    stop: StopRule = STOP_RULES["never"]
    draw: DrawChildren | None = None
    temperature: float = 1.0

    def exact(self) -> dict[tuple[int, ...], float]:
        """The target's law over the first K+1 tokens."""
        request = Request(PROMPT, Sampling(temperature=self.temperature), len(self.widths) + 1)
        return exact_law(self.target, request)

    def law(self) -> dict[tuple[int, ...], float]:
        """The law over the first K+1 tokens, when this step is continued by plain decoding."""
        law: dict[tuple[int, ...], float] = {}
        for (tokens, _), prob in every_outcome(self._play):
            for output, p in self._continued(tokens, prob):
                law[output] = law.get(output, 0.0) + p
        return law

    def expected_accepted(self) -> float:
        """Mean number of accepted tokens."""
        return sum(prob * accepted for (_, accepted), prob in every_outcome(self._play))

    def _play(self, scripts: list[Script]) -> list[tuple[tuple[int, ...], int]]:
        trees = [self._grow(script) for script in scripts]
        draft, p = self._batch(trees)
        verdict = self.rule.accept(draft, p, EveryOutcome(lambda b: scripts[b]))
        check_verdict(draft, verdict)
        return [
            ((*(draft.tokens[b, node].item() for node in path), token), count)
            for b, (path, count, token) in enumerate(zip(verdict.path, verdict.counts, verdict.next_token, strict=True))
        ]

    def _grow(self, script: Script) -> list[_Node]:
        nodes = [_Node(0, ())]
        draw = self.draw or DRAW[self.drawn]
        for node in nodes:  # grows while it is read
            depth = len(node.path)
            if depth < len(self.widths) and not (depth and self.stop(node.path, node.prob)):
                q = softmax(self.draft([*PROMPT, *node.path]))
                children = draw(script, q, self.widths[depth])
                node.q = q if children else None
                nodes += [_Node(nodes.index(node), (*node.path, token), q[token]) for token in children]
        return nodes

    def _batch(self, trees: list[list[_Node]]) -> tuple[Draft, Tensor]:
        vocab, widest = self.target.vocab_size, max(len(tree) for tree in trees)
        tokens = torch.zeros(len(trees), widest, dtype=torch.int64)
        parents = torch.zeros_like(tokens)
        p = torch.full((len(trees), widest, vocab), 1 / vocab, dtype=torch.float64)
        q = torch.zeros_like(p)
        for b, tree in enumerate(trees):
            for i, node in enumerate(tree):
                tokens[b, i], parents[b, i] = (*PROMPT, *node.path)[-1], node.parent
                p[b, i] = torch.tensor(self._p(node.path), dtype=torch.float64)
                if node.q is not None:
                    q[b, i] = torch.tensor(node.q, dtype=torch.float64)
        sizes = [len(tree) for tree in trees]
        prob = [[n.prob for n in tree] for tree in trees]
        known = None if self.drawn is Drawn.POINT else q
        return Draft(tokens, parents, sizes, known, self.drawn, prob, [0] * len(trees)), p

    def _p(self, path: Sequence[int]) -> Probs:
        p = softmax(self.target([*PROMPT, *path]))
        return p if self.temperature else [float(token == p.index(max(p))) for token in range(len(p))]

    def _continued(self, tokens: tuple[int, ...], prob: float) -> Iterator[tuple[tuple[int, ...], float]]:
        if len(tokens) == len(self.widths) + 1:
            yield tokens, prob
            return
        for token, p in enumerate(self._p(tokens)):
            if p > 0:
                yield from self._continued((*tokens, token), prob * p)


@dataclass(eq=False)
class _Node:
    parent: int
    path: tuple[int, ...]
    prob: float = 1.0
    q: Probs | None = None


def check_verdict(draft: Draft, verdict: Verdict) -> None:
    """What every verdict promises, whatever it decides (see `Verdict`)."""
    sizes, parents = draft.sizes, draft.parents.tolist()
    for b, (accepted, tested, recovered) in enumerate(
        zip(verdict.path, verdict.tested, verdict.recovered, strict=True)
    ):
        path = [0, *accepted]
        assert all(parents[b][child] == node for node, child in pairwise(path)), "not a path"
        assert all(0 < node < sizes[b] for node in path[1:]), "a node that was not drafted"
        assert len(accepted) <= tested <= sizes[b] - 1, "accepted <= tested <= drafted"
        has_children = path[-1] in parents[b][1 : sizes[b]]
        assert recovered == has_children, "recovered exactly when something drafted was rejected"
