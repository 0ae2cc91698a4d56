"""The greedy match, for requests at temperature 0."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from foretoken.accept.base import AcceptanceRule
from foretoken.host import to_host
from foretoken.rng import Dice, check_usable
from foretoken.types import Draft, Drawn, Verdict


class Greedy(AcceptanceRule):
    """Walk down the tree as long as a child carries the target's most likely token.

    Works on any tree, however its children were chosen, and needs no randomness.

    Reference: Stern et al. 2018, Blockwise Parallel Decoding, https://arxiv.org/abs/1811.03115, section 3.
    Cost per step: no forwards; one argmax over [B, N, V].
    """

    lossless: ClassVar[bool] = True
    handles: ClassVar[frozenset[Drawn]] = frozenset(Drawn)
    greedy_only: ClassVar[bool] = True

    def accept(self, draft: Draft, p: Tensor, rng: Dice) -> Verdict:
        here = to_host(draft.tokens, draft.parents, *p.max(-1))
        trees = zip(draft.sizes, *(each.tolist() for each in here), strict=True)
        walks = [_walk(*tree) for tree in trees]
        check_usable([walk[-1] for walk in walks])
        path, tested, following, recovered, _ = zip(*walks, strict=True)
        return Verdict(path, tested, following, recovered)


def _walk(
    size: int, tokens: list[int], parents: list[int], most: list[float], best: list[int]
) -> tuple[list[int], int, int, bool, float]:
    """One row's path, the nodes looked at, the token after it, whether it is a recovered one, and its probability.

    Args:
        size: nodes in use.
        tokens: of the tree.
        parents: of the tree.
        most: probability of the target's most likely token after each node.
        best: that token.
    """
    node, path, tested = 0, list[int](), 0
    while True:
        children = [below for below in range(node + 1, size) if parents[below] == node]
        tested += len(children)
        matching = [child for child in children if tokens[child] == best[node]]
        if not matching:
            return path, tested, best[node], bool(children), most[node]
        node = matching[0]
        path.append(node)
