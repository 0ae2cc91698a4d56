"""Draw a chain without looking at it, where lengths do not depend on it and looking means waiting for a device."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foretoken.host import to_device
from foretoken.length.base import LengthPolicy
from foretoken.shape.base import TreeShape
from foretoken.types import Batch, Draft, Drawn, Frontier

if TYPE_CHECKING:
    from foretoken.draft.base import ChainDrafter


def draft_ahead(
    drafter: ChainDrafter, certain: bool, batch: Batch, length: LengthPolicy, shape: TreeShape, room: list[int]
) -> Draft:
    """As `ChainDrafter.draft`, but what ends a text is found on the device, when all is drawn.

    What was drawn after it is dropped. That was decided by tokens drawn before, so the output stays exact.

    Args:
        drafter: scores tokens.
        certain: whether every row takes the likeliest token.
        batch: the rows; no request's sampling depends on what was drafted.
        length: a policy that does not look.
        shape: a chain.
        room: how many tokens each row may be drafted.
    """
    tokens, laws = [batch.roots], []
    probs = [torch.ones(len(room), 1, device=batch.device)]
    ready: list[tuple[Tensor, ...]] = []  # drawn, but not taken yet; the next one last
    depths, forwards, unseen = [0] * len(room), [0] * len(room), torch.ones(len(room), 1)
    while any(going := [depth < most for depth, most in zip(depths, room, strict=True)]):
        frontier = Frontier(torch.tensor(depths)[:, None], unseen, None, None, torch.tensor(going)[:, None])
        grow = (frontier.active & length.grow(frontier, batch) & (shape.children(frontier) > 0))[:, 0]
        if not any(growing := grow.tolist()):
            break
        if not ready:
            likely = min(length.likely(batch, len(tokens) - 1), max(room) - len(tokens) + 1)
            drawn, peeked = drafter.candidates(batch, tokens, certain, growing, lambda *_: None, likely)
            parts = (drawn.tokens, drawn.prob[..., None], *([] if drawn.q is None else [drawn.q]))
            ready = list(zip(*(part.unbind(1) for part in parts), strict=True))[::-1]
            cost = sum(drafter.forwards(len(tokens) + more) for more in range(len(ready)))
            forwards = [spent + cost * more for spent, more in zip(forwards, growing, strict=True)]
        if peeked:
            batch.draft_rng.spend(growing)
        token, prob, *law = ready.pop()
        tokens.append(token)
        probs.append(prob)
        laws += law
        # A row that stopped before the others keeps its depth, and is not asked to grow again.
        room = [most if more else depth for most, depth, more in zip(room, depths, growing, strict=True)]
        depths = [depth + more for depth, more in zip(depths, growing, strict=True)]
    if not any(depths):
        return Draft.root_only(tokens[0], Drawn.IID)
    return _chain(batch, torch.stack(tokens, 1), laws, torch.cat(probs, 1), depths, forwards)


def _chain(
    batch: Batch, drawn: Tensor, laws: list[Tensor], prob: Tensor, depths: list[int], forwards: list[int]
) -> Draft:
    """A chain per row, cut behind the first token that ends its text.

    Args:
        batch: the rows.
        drawn: [B, N] int64. The root and what was drawn below it, meaningless beyond a row's depth.
        laws: [B, V] float each. What each depth was drawn from; empty where every token is a point mass.
        prob: [B, N] float. As in `Draft`.
        depths: how many tokens were drawn for each row.
        forwards: as in `Draft`.
    """
    node = torch.arange(drawn.shape[1], device=drawn.device)
    stops = [sorted(row.request.stop_token_ids) for row in batch.rows]
    longest = max(map(len, stops))
    held = partial(to_device, device=batch.device)
    sizes = held(depths) + 1
    if longest:
        ends = held([ids + [-1] * (longest - len(ids)) for ids in stops])
        ended = (drawn[:, 1:, None] == ends[:, None]).any(-1)  # [B, N-1]
        sizes = torch.minimum(sizes, 1 + (ended.cumsum(1) - ended.to(torch.int64) == 0).sum(1))
    used = node < sizes[:, None]
    law = None
    if laws:
        law = torch.stack([*laws, torch.zeros_like(laws[0])], 1) * (node < sizes[:, None] - 1)[..., None]
    drawn_as = Drawn.POINT if law is None else Drawn.IID
    parents = (node - 1).clamp_min(0) * used
    return Draft(drawn * used, parents, sizes, law, drawn_as, prob, held(forwards), chain=True)
