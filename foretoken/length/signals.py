"""What a draft's own distribution says about its newest token, without training: [0, 1], high where it is sure.

All are 1 at the root, which is committed.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from foretoken.types import Continuation, Frontier

GAMMA = 0.2  # of the entropy bound, as published
FLOOR = -1e3  # log-probability of what cannot be drawn, so that 0 x log 0 is 0


def prob(drawn: Frontier | Continuation) -> Tensor:
    """The draft's probability of the drawn token.

    Returns:
        [B, F] or [B, K] float.
    """
    return drawn.prob


def top1(drawn: Frontier | Continuation) -> Tensor:
    """The draft's highest probability, whichever token was drawn.

    Returns:
        [B, F] or [B, K] float.
    """
    if drawn.logits is None:
        return drawn.prob
    return drawn.logits.softmax(-1).amax(-1)


def margin(drawn: Frontier | Continuation) -> Tensor:
    """By how much the highest probability exceeds the second.

    Returns:
        [B, F] or [B, K] float.
    """
    if drawn.logits is None:
        return drawn.prob
    first, second = drawn.logits.softmax(-1).topk(2, -1).values.unbind(-1)
    return first - second


def entropy(drawn: Frontier | Continuation, gamma: float = GAMMA) -> Tensor:
    """Lower bound on acceptance by the entropy H of the draft: 1 - sqrt(gamma H), at least 0.

    Reference: Agrawal, Jeon and Lee 2024, AdaEDL, https://arxiv.org/abs/2410.18351.

    Returns:
        [B, F] or [B, K] float.
    """
    if drawn.logits is None:
        return drawn.prob
    bound: Tensor = 1 - (gamma * spread(drawn.logits, drawn.logits.softmax(-1))).clamp_min(0).sqrt()
    return bound.clamp_min(0)


def spread(logits: Tensor, law: Tensor) -> Tensor:
    """Entropy in nats.

    Args:
        logits: [..., V] float.
        law: [..., V] float. Their softmax, which costs less than to exponentiate logarithms.

    Returns:
        [...] float.
    """
    return -(law * logits.log_softmax(-1).clamp_min(FLOOR)).sum(-1)


Signal = Callable[[Frontier | Continuation], Tensor]
SIGNALS: dict[str, Signal] = {"prob": prob, "top1": top1, "margin": margin, "entropy": entropy}
