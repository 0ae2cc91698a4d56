"""Draw a chain without looking at it, since looking means waiting for a device: it is as long as was known, or told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foretoken.length.base import LengthPolicy, single
from foretoken.models.base import Stop
from foretoken.shape.base import TreeShape
from foretoken.types import Batch, Draft, Drawn, Frontier, Unseen, chained

if TYPE_CHECKING:
    from foretoken.draft.base import ChainDrafter


def draft_unasked(
    drafter: ChainDrafter, certain: bool, batch: Batch, length: LengthPolicy, shape: TreeShape, room: list[int]
) -> Draft | None:
    """As `ChainDrafter.draft`, where nobody has to look at a token before the target has judged it; else None.

    Nobody notices where a text ends, then: what was drawn after that is verified in vain.

    Args:
        drafter: scores tokens.
        certain: whether every row takes the likeliest token.
        batch: the rows.
        length: decides.
        shape: a chain.
        room: how many tokens each row may be drafted.
    """
    if any(row.request.sampling.edits for row in batch.rows):
        return None
    if not length.looks:
        return draft_ahead(drafter, certain, batch, length, shape, room)
    stop = rule(drafter, batch, length, shape, room)
    return stop and draft_until(drafter, certain, batch, stop)


def draft_ahead(
    drafter: ChainDrafter, certain: bool, batch: Batch, length: LengthPolicy, shape: TreeShape, room: list[int]
) -> Draft:
    """As many tokens as are known to be wanted.

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
            laws += [] if drawn.q is None or batch.coupled else [drawn.q]
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
    law, sizes = law_of(laws, depths), [depth + 1 for depth in depths]
    nodes = _chain(roots, torch.cat(tokens, 1)[:, : max(depths)], _uneven(depths, tokens[0].device))
    return Draft(nodes, chained(*sizes), sizes, law, _kind(law), None, forwards, chain=True)


def rule(drafter: ChainDrafter, batch: Batch, length: LengthPolicy, shape: TreeShape, room: list[int]) -> Stop | None:
    """A rule by which a device may draft for all rows without being looked at, if there is one.

    Args:
        drafter: scores tokens.
        batch: the rows; no request's sampling depends on what was drafted.
        length: a policy that looks.
        shape: a chain.
        room: how many tokens each row may be drafted.
    """
    samplings = [row.request.sampling for row in batch.rows]
    greedy = [sampling.greedy() for sampling in samplings]
    # A text that has to repeat must not depend on what can be drawn for its neighbours, and the random numbers that
    # point masses take are counted before they are judged.
    repeats = any(row.request.repeats and not one for row, one in zip(batch.rows, greedy, strict=True))
    points = any(sampling.greedy(drafter.temperature) for sampling in samplings)
    if repeats or (points and not all(greedy)) or min(room) < 1 or not (most := drafter.alone(batch)):
        return None
    stop = length.stop(batch, most)
    if stop is None:
        return None
    root = Frontier(single([0] * len(room)), single([1.0] * len(room)), single([True] * len(room)))
    decided = zip(length.grow(root, batch), shape.children(root), strict=True)
    wanted = all(grow and count > 0 for (grow,), (count,) in decided)
    return stop._replace(room=list(map(min, stop.room, room))) if wanted else None


def draft_until(drafter: ChainDrafter, certain: bool, batch: Batch, stop: Stop) -> Draft:
    """A chain per row that a device draws until a rule stops it, and which nobody has looked at.

    Args:
        drafter: draws.
        certain: whether every row takes the likeliest token.
        batch: the rows; no request's sampling depends on what was drafted.
        stop: the rule; every row has room.
    """
    roots, most = batch.roots, max(stop.room)
    growing = [True] * len(stop.room)
    drawn, _ = drafter.candidates(batch, [roots], certain, growing, lambda *_: None, most, stop)
    assert drawn.wanted is not None, "a rule decided"
    tokens = _chain(roots, drawn.tokens, drawn.wanted)
    law = None if drawn.q is None else _laid_out(drawn.q, drawn.wanted)
    unseen, bounds = Unseen(drawn.wanted, drawn.prob), list(stop.room)
    sizes = [bound + 1 for bound in bounds]
    return Draft(tokens, chained(*sizes), sizes, law, _kind(law), None, bounds, chain=True, unseen=unseen)


def law_of(drawn: list[Tensor], depths: Sequence[int]) -> Tensor | None:
    """`Draft.q` of a chain per row.

    Args:
        drawn: what each run of tokens was drawn from, [B, K, V] float; none where every token is a point mass.
        depths: per row. How many of these tokens it has.
    """
    if not drawn:
        return None
    all_of_it = drawn[0] if len(drawn) == 1 else torch.cat(drawn, 1)
    return _laid_out(all_of_it[:, : max(depths)], _uneven(depths, all_of_it.device))


def _laid_out(drawn: Tensor, depths: Tensor | None) -> Tensor:
    """As `law_of`, of [B, K, V] float, with depths as in `_chain`."""
    law = torch.cat([drawn, drawn.new_zeros(len(drawn), 1, drawn.shape[2])], 1)
    return law if depths is None else law.masked_fill((_left(depths, law) < 1)[..., None], 0)


def _chain(roots: Tensor, drawn: Tensor, depths: Tensor | None) -> Tensor:
    """`Draft.tokens` of a chain per row.

    Args:
        roots: [B] int64, on the CPU.
        drawn: [B, K] int64. What was drawn, meaningless beyond a row's depth.
        depths: [B] int64 or None. How many tokens were drawn for each row; None for all of them.
    """
    tokens = torch.cat([roots.to(drawn.device, non_blocking=True)[:, None], drawn], 1)
    return tokens if depths is None else tokens.masked_fill(_left(depths, tokens) < 0, 0)


def _left(depths: Tensor, nodes: Tensor) -> Tensor:
    """[B, N] int64. How many tokens of its row stand below each node."""
    return depths[:, None] - torch.arange(nodes.shape[1], device=nodes.device)


def _uneven(depths: Sequence[int], device: torch.device) -> Tensor | None:
    """[B] int64 on a device, or None if all are the same."""
    return None if min(depths) == max(depths) else torch.tensor(depths).to(device, non_blocking=True)


def _kind(law: Tensor | None) -> Drawn:
    return Drawn.POINT if law is None else Drawn.IID
