"""Station 4: which drafted tokens are kept, and which token follows them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from foretoken.rng import Rng
from foretoken.types import Draft, Drawn, Verdict


class AcceptanceRule(ABC):
    """Judges a draft against the target.

    Attributes:
        lossless: whether the emitted text has exactly the target's distribution.
        handles: draft types the rule is exact for; others are refused before anything is loaded.
        max_children: 1 for rules that only know chains, None for any tree.
        greedy_only: whether every request must have temperature 0.
    """

    lossless: ClassVar[bool]
    handles: ClassVar[frozenset[Drawn]]
    max_children: ClassVar[int | None] = None
    greedy_only: ClassVar[bool] = False

    @dataclass(frozen=True, slots=True)
    class Config:
        """No options."""

    def __init__(self, config: Config | None = None) -> None:  # noqa: B027 - no rule needs to keep it yet
        """A rule with its options."""

    @abstractmethod
    def accept(self, draft: Draft, p: Tensor, rng: Rng) -> Verdict:
        """Decide.

        Args:
            draft: what was drafted.
            p: [B, N, V] float. What the request asks to sample from after each node.
            rng: the rows' random numbers for acceptance.

        Returns:
            The accepted path, and one recovered or bonus token per row.
        """

    def match(self, draft: Draft, likeliest: Tensor) -> Verdict:
        """What `accept` comes to, for every lossless rule, on chains whose requests take the target's likeliest token.

        Args:
            draft: a chain per row, on the CPU.
            likeliest: [B, N] int64, on the CPU. After each node.

        Returns:
            The tokens up to the first that is not the target's, and the target's after them.
        """
        if draft.tokens.shape[1] == 1:
            return plain_verdict(draft, likeliest[:, 0])
        # A handful of numbers per row: as lists they take less time than one operation on a tensor each.
        rows = list(zip(draft.tokens.tolist(), likeliest.tolist(), (draft.sizes - 1).tolist(), strict=True))
        counts = [next((i for i in range(last) if tokens[i + 1] != best[i]), last) for tokens, best, last in rows]
        length = draft.tokens.shape[1]
        path = [[*range(1, count + 1), *[-1] * (length - 1 - count)] for count in counts]
        tested = [min(count + 1, last) for count, (_, _, last) in zip(counts, rows, strict=True)]
        following = [best[count] for count, (_, best, _) in zip(counts, rows, strict=True)]
        recovered = [count < last for count, (_, _, last) in zip(counts, rows, strict=True)]
        return Verdict(*map(torch.tensor, (path, counts, tested, following, recovered)))


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


def chain_law_at(draft: Draft, p: Tensor, node: Tensor) -> Tensor:
    """`chain_law` after one node of each row, without building the rest.

    Args:
        draft: a chain per row.
        p: [B, N, V] float. Gives size and dtype.
        node: [B] int64. Nodes, all in use.

    Returns:
        [B, V] float. Zero where nothing was drafted.
    """
    row = torch.arange(len(node), device=node.device)
    if draft.q is not None:
        return draft.q[row, node].to(p)
    following = draft.tokens[row, (node + 1).clamp_max(draft.tokens.shape[1] - 1)]
    there = (node < draft.sizes - 1)[:, None].to(p)
    return torch.zeros_like(p[:, 0]).scatter_(-1, following[:, None], there)


def chain_ratios(draft: Draft, p: Tensor) -> Tensor:
    """How much likelier the target finds each token of a chain than the law it was drawn from.

    Args:
        draft: a chain per row.
        p: [B, N, V] float. What the request asks to sample from after each node.

    Returns:
        [B, N-1] float. p/q of the token at node i+1, given node i; 0 in padding, which no coin accepts.
    """
    tokens = draft.tokens[:, 1:, None]
    p_token = p[:, :-1].gather(-1, tokens).squeeze(-1)
    if draft.q is None:
        return p_token * draft.nodes[:, 1:]
    q_token = draft.q[:, :-1].gather(-1, tokens).squeeze(-1).to(p)
    # q is never 0 for a token that was drawn.
    return torch.where(q_token > 0, p_token / q_token, 0.0)


def chain_verdict(draft: Draft, counts: Tensor, tested: Tensor, law: Tensor, rng: Rng) -> Verdict:
    """Accept the first `counts` tokens of each chain and draw the token after them.

    Args:
        draft: a chain per row.
        counts: [B] int64. Accepted tokens.
        tested: [B] int64. Tokens the rule looked at.
        law: [B, V] float. What to draw the recovered or bonus token from.
        rng: the rows' random numbers for acceptance.
    """
    steps = torch.arange(1, draft.tokens.shape[1], device=counts.device)
    path = torch.where(steps <= counts[:, None], steps, -1)
    next_token = rng.pick(law, torch.ones(len(counts), dtype=torch.bool))
    return Verdict(path, counts, tested, next_token, counts < draft.sizes - 1)


def plain_verdict(draft: Draft, token: Tensor) -> Verdict:
    """The verdict on a draft of roots alone.

    Args:
        draft: roots.
        token: [B] int64. The bonus token of each row.
    """
    none = torch.zeros_like(draft.sizes)
    return Verdict(draft.tokens[:, :0], none, none, token, none > 0)


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
