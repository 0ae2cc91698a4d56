"""Methods for tests only: policies made to be awkward, drafters of the kinds not registered yet, and a lossy rule."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from foretoken.accept.base import AcceptanceRule, chain_law, chain_ratios, chain_verdict, leading, residual
from foretoken.draft.base import Drafter
from foretoken.draft.model import ModelDrafter
from foretoken.draft.relay import Relay
from foretoken.draft.suffix import Suffix
from foretoken.length.base import Growth, LengthPolicy, within
from foretoken.models.base import LanguageModel
from foretoken.rng import Dice
from foretoken.shape.base import TreeShape
from foretoken.types import Batch, Draft, Drawn, Frontier, Row, Verdict


class Policy(LengthPolicy):
    """A policy without options."""

    def __init__(self, config: LengthPolicy.Config | None = None) -> None:
        pass


class StopAfterZero(Policy):
    """Stop as soon as the last token is token 0: the policy knows what was drawn, and only then decides."""

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})

    def grow(self, frontier: Frontier, batch: Batch) -> Growth:
        return [[token != 0 for token in row] for row in drawn_tokens(frontier)]


class Parity(Policy):
    """Go on after even tokens at even depths, and after odd ones at odd depths."""

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})

    def grow(self, frontier: Frontier, batch: Batch) -> Growth:
        rows = zip(drawn_tokens(frontier), frontier.depth, strict=True)
        return [[(token + depth) % 2 == 0 for token, depth in zip(*row, strict=True)] for row in rows]


class HiddenDigest(Policy):
    """Stop by the drafter's hidden state (of a table model: the digest of what it read), or by a modest probability."""

    needs: ClassVar[frozenset[str]] = frozenset({"hidden"})

    def grow(self, frontier: Frontier, batch: Batch) -> Growth:
        if frontier.hidden is None:
            return frontier.active
        rows = zip(frontier.hidden[..., 1].tolist(), frontier.prob, strict=True)
        return [[state % 2 == 0 or prob > 0.5 for state, prob in zip(*row, strict=True)] for row in rows]


class Moody(Policy):
    """Change with what was accepted before and what was said: after a rejection draft one token, else two or three.

    Where nothing has to be drawn, four tokens are read whatever they are.
    """

    def least(self, batch: Batch) -> int:
        return 4

    def grow(self, frontier: Frontier, batch: Batch) -> Growth:
        most = [1 if row.memory.get(self) else 2 + row.tokens[-1] % 2 for row in batch.rows]
        return within(frontier, most)

    def observe(self, batch: Batch, draft: Draft, verdict: Verdict) -> None:
        for row, recovered in zip(batch.rows, verdict.recovered, strict=True):
            row.memory[self] = recovered


def drawn_tokens(frontier: Frontier) -> list[list[int]]:
    """Each leaf's token, recognised by its probability; -2 at the root."""
    if frontier.logits is None:
        return [[-2] * len(row) for row in frontier.depth]
    away = frontier.logits.softmax(-1).cpu() - torch.tensor(frontier.prob)[..., None]
    found: list[list[int]] = away.abs().argmin(-1).tolist()
    return found


class LookUp(Drafter):
    """A chain without a model: what followed the last token when it came up before, else the token said last."""

    drawn: ClassVar[Drawn] = Drawn.POINT
    width: ClassVar[int] = 1

    def draft(self, batch: Batch, length: LengthPolicy, shape: TreeShape, max_nodes: int) -> Draft:
        trees = [_Tree(row) for row in batch.rows]
        for depth in range(max(row.room for row in batch.rows)):
            frontier = _frontier(trees, depth, max_nodes)
            grow, children = length.grow(frontier, batch), shape.children(frontier)
            for b, tree in enumerate(trees):
                for at, leaf in enumerate(tree.leaves()):
                    tree.add(
                        leaf,
                        self._guesses(tree, leaf)[: children[b][at] * (frontier.active[b][at] and grow[b][at])],
                        max_nodes,
                    )
                tree.next_level()
        return _draft(trees, self.drawn)

    def _guesses(self, tree: _Tree, leaf: int) -> list[int]:
        history = tree.row.tokens[:-1] + tree.path(leaf)
        followers = [after for token, after in pairwise(history) if token == history[-1]]
        return list(dict.fromkeys(followers[::-1] + history[::-1]))[: self.width]


class TwoGuesses(LookUp):
    """A tree of deterministic guesses, two below every leaf that may grow."""

    max_children: ClassVar[int] = 2
    width: ClassVar[int] = 2


class Relayed(Relay):
    """Look-ups before the draft model, taken at the slightest promise."""

    uses_model: ClassVar[bool] = True
    guess: ClassVar[float] = 0.3
    Config = ModelDrafter.Config  # type: ignore[assignment, misc] - the model's options are its own

    def __init__(self, config: ModelDrafter.Config | None = None, model: LanguageModel | None = None) -> None:
        super().__init__(Suffix(), ModelDrafter(config, model))


class Twins(TreeShape):
    """Two children everywhere."""

    max_children: ClassVar[int] = 2

    def children(self, frontier: Frontier) -> Sequence[Sequence[int]]:
        return [[2] * len(leaves) for leaves in frontier.depth]


class Lenient(AcceptanceRule):
    """Token-by-token rejection that turns a blind eye: twice the chance to be kept. Lossy on purpose."""

    lossless: ClassVar[bool] = False
    handles: ClassVar[frozenset[Drawn]] = frozenset({Drawn.IID, Drawn.POINT})
    max_children: ClassVar[int | None] = 1

    def accept(self, draft: Draft, p: Tensor, rng: Dice) -> Verdict:
        ratios = chain_ratios(draft, p)
        counts = [leading(rng.coin(b, min(2 * ratio, 1.0)) for ratio in row) for b, row in enumerate(ratios)]
        row = torch.arange(len(counts))
        law = residual(p[row, counts], chain_law(draft, p)[row, counts])
        return chain_verdict([len(row) for row in ratios], counts, rng.pick(law, [True] * len(law)))


class _Tree:
    """The tree of one row while it grows, level by level."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.tokens, self.parents = [row.tokens[-1]], [0]
        self._level, self._end = [0], 1

    def leaves(self) -> list[int]:
        return self._level

    def next_level(self) -> None:
        self._level, self._end = list(range(self._end, len(self.tokens))), len(self.tokens)

    def add(self, leaf: int, tokens: list[int], max_nodes: int) -> None:
        tokens = [] if leaf and self.tokens[leaf] in self.row.request.stop_token_ids else tokens
        for token in tokens[: max_nodes - len(self.tokens)]:
            self.tokens.append(token)
            self.parents.append(leaf)

    def path(self, node: int) -> list[int]:
        """Tokens from the root, which is the last committed token, down to the node."""
        return [*(self.path(self.parents[node]) if node else []), self.tokens[node]]


def _frontier(trees: list[_Tree], depth: int, max_nodes: int) -> Frontier:
    widest = max(1, *(len(tree.leaves()) for tree in trees))
    deep_enough = [depth < tree.row.room and len(tree.tokens) < max_nodes for tree in trees]
    active = [
        [more and f < len(tree.leaves()) for f in range(widest)] for tree, more in zip(trees, deep_enough, strict=True)
    ]
    return Frontier([[depth] * widest] * len(trees), [[1.0] * widest] * len(trees), active)


def _draft(trees: list[_Tree], drawn: Drawn) -> Draft:
    widest = max(len(tree.tokens) for tree in trees)
    tokens = torch.tensor([tree.tokens + [0] * (widest - len(tree.tokens)) for tree in trees])
    parents = torch.tensor([tree.parents + [0] * (widest - len(tree.tokens)) for tree in trees])
    return Draft(tokens, parents, [len(tree.tokens) for tree in trees], None, drawn, None, [0] * len(trees))
