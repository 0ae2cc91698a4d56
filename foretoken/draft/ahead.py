"""Draw a chain without looking at it, where lengths do not depend on it and looking means waiting for a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foretoken.length.base import LengthPolicy, single
from foretoken.shape.base import TreeShape
from foretoken.types import Batch, Draft, Drawn, Frontier, chained

if TYPE_CHECKING:
    from foretoken.draft.base import ChainDrafter


def draft_ahead(
    drafter: ChainDrafter, certain: bool, batch: Batch, length: LengthPolicy, shape: TreeShape, room: list[int]
) -> Draft:
    """As `ChainDrafter.draft`, but nobody notices where a text ends: what was drawn after that is verified in vain.

    Args:
        drafter: scores tokens.
        certain: whether every row takes the likeliest token.
        batch: the rows; no request's sampling depends on what was drafted.
        length: a policy that does not look.
        shape: a chain.
        room: how many tokens each row may be drafted.
    """
    roots = batch.roots
    tokens, laws = list[Tensor](), list[Tensor]()  # [B, K] and [B, K, V] each
    depths, forwards, ready = [0] * len(room), [0] * len(room), 0
    unseen = [[1.0]] * len(room)
    while any(going := [depth < most for depth, most in zip(depths, room, strict=True)]):
        frontier = Frontier(single(depths), unseen, single(going))
        decided = zip(going, length.grow(frontier, batch), shape.children(frontier), strict=True)
        growing = [one and grow and count > 0 for one, (grow,), (count,) in decided]
        if not any(growing):
            break
        deep = max(depths)
        if deep == ready:
            likely = min(length.plan(batch, deep).draw, max(room) - deep)
            read = [roots, *(token for drawn in tokens for token in drawn.unbind(1))]
            drawn, peeked = drafter.candidates(batch, read, certain, growing, lambda *_: None, likely)
            tokens.append(drawn.tokens)
            laws += [] if drawn.q is None else [drawn.q]
            count = drawn.tokens.shape[1]
            cost = sum(drafter.forwards(deep + more) for more in range(1, count + 1))
            forwards = [spent + cost * more for spent, more in zip(forwards, growing, strict=True)]
            ready += count
        if peeked:
            batch.draft_rng.spend(growing)
        # A row that stopped before the others keeps its depth, and is not asked to grow again.
        room = [most if more else depth for most, depth, more in zip(room, depths, growing, strict=True)]
        depths = [depth + more for depth, more in zip(depths, growing, strict=True)]
    if not any(depths):
        return Draft.root_only(roots, Drawn.IID)
    return _chain(roots, tokens, laws, depths, forwards)


def _chain(roots: Tensor, tokens: list[Tensor], laws: list[Tensor], depths: list[int], forwards: list[int]) -> Draft:
    """A chain per row.

    Args:
        roots: [B] int64, on the CPU.
        tokens: [B, K] int64 each. What was drawn, meaningless beyond a row's depth.
        laws: [B, K, V] float each. What it was drawn from; empty where every token is a point mass.
        depths: how many tokens were drawn for each row.
        forwards: as in `Draft`.
    """
    there, nodes = tokens[0].device, max(depths) + 1
    sizes, alike = [depth + 1 for depth in depths], min(depths) == nodes - 1
    drawn = torch.cat([roots.to(there, non_blocking=True)[:, None], *tokens], 1)[:, :nodes]
    law = None
    if laws:
        law = torch.nn.functional.pad(torch.cat(laws, 1)[:, : nodes - 1], (0, 0, 0, 1))
    if not alike:
        node, deep = torch.arange(nodes), torch.tensor(depths)[:, None]
        drawn = drawn * (node <= deep).to(there, non_blocking=True)
        if law is not None:
            law = law * (node < deep)[..., None].to(there, non_blocking=True)
    drawn_as = Drawn.POINT if law is None else Drawn.IID
    return Draft(drawn, chained(*sizes), sizes, law, drawn_as, None, forwards, chain=True)
