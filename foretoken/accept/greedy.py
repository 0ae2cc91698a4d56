"""The greedy match, for requests at temperature 0."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from foretoken.accept.base import AcceptanceRule
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
        best = p.argmax(-1)  # [B, N]
        row = torch.arange(len(best), device=best.device)
        index = torch.arange(draft.tokens.shape[1], device=best.device)
        node = torch.zeros_like(draft.sizes)
        counts, tested = torch.zeros_like(draft.sizes), torch.zeros_like(draft.sizes)
        path = torch.full_like(draft.tokens[:, 1:], -1)
        child_of = draft.nodes & (index > 0)
        walking = torch.ones_like(draft.sizes, dtype=torch.bool)
        for depth in range(path.shape[1]):
            children = child_of & (draft.parents == node[:, None]) & walking[:, None]
            tested += children.sum(-1)
            matching = children & (draft.tokens == best[row, node][:, None])
            walking = matching.any(-1)
            node = torch.where(walking, matching.int().argmax(-1), node)
            path[:, depth] = torch.where(walking, node, -1)
            counts += walking
        check_usable(p[row, node].amax(-1).tolist())
        leaf = ~(child_of & (draft.parents == node[:, None])).any(-1)
        return Verdict(path, counts, tested, best[row, node], ~leaf)
