"""Station 3: one target forward over the token tree scores what follows every node."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from foretoken.models.base import LanguageModel, Places
from foretoken.types import Batch, Draft, Scores


def ancestors(parents: Tensor) -> Tensor:
    """Mark, for every node of a token tree, the nodes on its path from the root.

    This is the attention mask of tree verification, and its row sums minus one are the depths.

    Args:
        parents: [B, N] int64. Parent of each node, always a smaller index; the root is its own parent.

    Returns:
        [B, N, N] bool. Entry (b, i, j) is true when j is i or an ancestor of i.

    Example:
        A root with children 1 and 3, and 2 below 1:

        >>> ancestors(torch.tensor([[0, 0, 1, 0]]))[0].int().tolist()
        [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1]]
    """
    rows, nodes = parents.shape
    mask = torch.eye(nodes, dtype=torch.bool, device=parents.device).expand(rows, -1, -1)
    above = parents
    for _ in range((nodes - 1).bit_length()):  # each round sees twice as far up
        mask = mask | mask.gather(1, above[:, :, None].expand(-1, -1, nodes))
        above = above.gather(1, above)
    return mask


def verify(target: LanguageModel, draft: Draft, batch: Batch) -> Scores:
    """Score every node of the draft with the target.

    Returns:
        Scores of the forward, before any sampling parameter: of the nodes, then of what was read along.
    """
    tokens, parents = draft.tokens, draft.parents
    if draft.chain and draft.along is None:
        return target.forward(tokens, batch.cache)
    if draft.along is not None:
        tokens = torch.cat([tokens, draft.along.tokens.to(tokens.device, non_blocking=True)], 1)
        parents = torch.cat([parents, draft.along.parents], 1)
    mask = ancestors(parents)
    positions = batch.cache.lengths[:, None] + mask.sum(-1) - 1  # [B, N]
    return target.forward(tokens, batch.cache, Places(positions, mask))


class Paths:
    """History of a draft's nodes, looked up only by requests whose sampling depends on it."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft

    @cached_property
    def _lists(self) -> tuple[list[list[int]], list[list[int]], list[int]]:
        return self._draft.tokens.tolist(), self._draft.parents.tolist(), list(self._draft.sizes)

    def __call__(self, row: int, node: int) -> list[int] | None:
        """Tokens from the root's child down to the node; None in padding."""
        tokens, parents, sizes = self._lists
        if node >= sizes[row]:
            return None
        path: list[int] = []
        while node:
            path.append(tokens[row][node])
            node = parents[row][node]
        return path[::-1]
