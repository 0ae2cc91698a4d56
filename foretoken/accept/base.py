"""Station 4: which drafted tokens are kept, and which token follows them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import ClassVar

import torch
from torch import Tensor

from foretoken.host import to_device, to_host
from foretoken.rng import Dice, check_usable
from foretoken.types import Draft, Drawn, Verdict


class AcceptanceRule(ABC):
    """Judges a draft against the target.

    Attributes:
        lossless: whether the emitted text has exactly the target's distribution.
        handles: draft types the rule is exact for; others are refused before anything is loaded.
        max_children: 1 for rules that only know chains, None for any tree.
        greedy_only: whether every request must have temperature 0.
        coupled: whether drafters have to draw by the numbers that the target draws by (see `Race`).
    """

    lossless: ClassVar[bool]
    handles: ClassVar[frozenset[Drawn]]
    max_children: ClassVar[int | None] = None
    greedy_only: ClassVar[bool] = False
    coupled: ClassVar[bool] = False

    @dataclass(frozen=True, slots=True)
    class Config:
        """No options."""

    def __init__(self, config: Config | None = None) -> None:  # noqa: B027 - no rule needs to keep it yet
        """A rule with its options."""

    @abstractmethod
    def accept(self, draft: Draft, p: Tensor, rng: Dice) -> Verdict:
        """Decide.

        Args:
            draft: what was drafted.
            p: [B, N, V] float. What the request asks to sample from after each node.
            rng: the rows' random numbers for acceptance.

        Returns:
            The accepted path, and one recovered or bonus token per row.
        """

    def settle(self, draft: Draft, p: Tensor, rng: Dice) -> tuple[Draft, Verdict]:
        """`accept`, and the draft on the CPU but for its law. For rules that can do with one look at a device.

        Args:
            draft: what was drafted, wherever it is.
            p: [B, N, V] float. As in `accept`.
            rng: as in `accept`.
        """
        draft = draft if draft.unseen is None else draft.near()[0]
        verdict = self.accept(draft.at(p.device), p, rng)
        return draft.near()[0], verdict

    def match(self, draft: Draft, said: Sequence[Sequence[int]], mass: Sequence[Sequence[float]]) -> Verdict:
        """What `accept` comes to, for every lossless rule, on chains of point masses: go on while the target says so.

        Where every request takes the likeliest token, any chain is one of point masses.

        Args:
            draft: a chain per row, on the CPU.
            said: per row. The token that the target takes after each node; what follows the first that is not the
                chain's means nothing.
            mass: per row. What the target had to choose from after each node; not above zero where that was nothing.

        Returns:
            The tokens up to the first that is not the target's, and the target's after them.

        Raises:
            GenerationError: the target left nothing to choose from after a node that matters.
        """
        if draft.tokens.shape[1] == 1:
            check_usable([one for row in mass for one in row])
            return chain_verdict([0] * len(said), [0] * len(said), [own[0] for own in said])
        # A handful of numbers per row: as lists they take less time than one operation on a tensor each.
        rows = zip(draft.tokens.tolist(), said, draft.sizes, strict=True)
        counts = [leading(token == own[i] for i, token in enumerate(tokens[1:size])) for tokens, own, size in rows]
        check_usable([one for row, count in zip(mass, counts, strict=True) for one in row[: count + 1]])
        following = [own[count] for own, count in zip(said, counts, strict=True)]
        return chain_verdict([size - 1 for size in draft.sizes], counts, following)


def chain_law(draft: Draft, p: Tensor) -> Tensor:
    """What each token of a chain was drawn from, given its parent.

    Args:
        draft: a chain per row.
        p: [B, N, V] float. Gives size and dtype.

    Returns:
        [B, N, V] float. q, or a point mass where the drafter chose without drawing; zero where nothing was drafted.
    """
    if draft.q is not None:
        return draft.q.to(p)
    law = torch.zeros_like(p)
    law[:, :-1].scatter_(-1, draft.tokens[:, 1:, None], draft.nodes[:, 1:, None].to(p))
    return law


def chain_law_at(draft: Draft, p: Tensor, nodes: list[int]) -> Tensor:
    """`chain_law` after one node of each row, without building the rest.

    Args:
        draft: a chain per row.
        p: [B, N, V] float. Gives size and dtype.
        nodes: B nodes, all in use.

    Returns:
        [B, V] float. Zero where nothing was drafted.
    """
    if draft.q is not None:
        return after(draft.q, nodes).to(p)
    following = after(draft.tokens[..., None], [min(node + 1, draft.tokens.shape[1] - 1) for node in nodes])
    inside = [[node < size - 1] for node, size in zip(nodes, draft.sizes, strict=True)]
    there = to_device(inside, p.device).to(p)
    return torch.zeros_like(p[:, 0]).scatter_(-1, following, there)


def chain_ratios(draft: Draft, p: Tensor) -> list[list[float]]:
    """How much likelier the target finds each token of a chain than the law it was drawn from: p/q, given its parent.

    Args:
        draft: a chain per row.
        p: [B, N, V] float. What the request asks to sample from after each node.

    Returns:
        One row after another, a number per drafted token.
    """
    if p.device.type != "cpu":
        return ratios(draft.sizes, *(each.tolist() for each in to_host(*chain_chances(draft, p))))
    # A few numbers, which numpy finds in a tenth of the time.
    laws = [law.numpy() for law in (p, draft.q) if law is not None]
    chains = list(enumerate(zip(draft.tokens.tolist(), draft.sizes, strict=True)))
    found = [[[law.item(b, i, one) for i, one in enumerate(row[1:size])] for b, (row, size) in chains] for law in laws]
    return ratios(draft.sizes, *found)


def chain_chances(draft: Draft, p: Tensor) -> list[Tensor]:
    """[B, N-1] float each. What the target, and the law if there is one, give each token of a chain.

    Args:
        draft: a chain per row, where the laws are.
        p: [B, N, V] float. What the request asks to sample from after each node.
    """
    tokens = draft.tokens[:, 1:, None]
    laws = [p] if draft.q is None else [p, draft.q]
    return [law[:, :-1].gather(-1, tokens)[..., 0] for law in laws]


def ratios(sizes: Sequence[int], mine: list[list[float]], *drawn: list[list[float]]) -> list[list[float]]:
    """`chain_ratios` of chains of so many nodes, from what `chain_chances` finds."""
    if not drawn:
        return [row[: size - 1] for row, size in zip(mine, sizes, strict=True)]
    # q is never 0 for a token that was drawn.
    return [
        [one / other if other else 0.0 for one, other in zip(row[: size - 1], law, strict=False)]
        for row, law, size in zip(mine, *drawn, sizes, strict=True)
    ]


def leading(kept: Iterable[bool]) -> int:
    """How many are kept before the first that is not; nothing is asked about those after it."""
    return sum(1 for _ in takewhile(bool, kept))


def chain_verdict(
    most: list[int], counts: list[int], next_token: Sequence[int], tested: list[int] | None = None
) -> Verdict:
    """Accept the first `counts` tokens of each chain.

    Args:
        most: B drafted tokens.
        counts: B accepted tokens.
        next_token: B tokens, recovered or bonus.
        tested: B tokens the rule looked at; None where it goes from token to token until it refuses one.
    """
    refused = [count < drafted for count, drafted in zip(counts, most, strict=True)]
    tested = tested or [count + one for count, one in zip(counts, refused, strict=True)]
    return Verdict([range(1, count + 1) for count in counts], tested, next_token, refused)


def after(law: Tensor, nodes: list[int]) -> Tensor:
    """What follows one node of each row.

    Args:
        law: [B, N, V] float or int64.
        nodes: B nodes.

    Returns:
        [B, V] float or int64.
    """
    if len(nodes) == 1:  # a view takes a third of the time
        return law[:, nodes[0]]
    return law[torch.arange(len(nodes), device=law.device), to_device(nodes, law.device)]


def residual(p: Tensor, q: Tensor) -> Tensor:
    """Distribution to draw from after the target rejects a token that was drawn from `q`.

    Where p and q are equal nothing is left over, a rejection has probability zero, and `p` is returned.

    Args:
        p: [..., V] float. Target distribution, or a multiple of it.
        q: [..., V] float. Draft distribution the rejected token came from.

    Returns:
        [..., V] float. Positive part of p - q, rescaled to sum to one.

    Example:
        >>> residual(torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.6, 0.2])).tolist()
        [1.0, 0.0, 0.0]

    Reference: Leviathan et al. 2023, Algorithm 1, https://arxiv.org/abs/2211.17192
    """
    left = (p - q).clamp_min(0)
    total = left.sum(-1, keepdim=True)
    return torch.where(total > 0, left / total.clamp_min(torch.finfo(p.dtype).tiny), p)
