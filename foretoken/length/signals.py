"""What a draft's own distribution says about its newest token, without training: [0, 1], high where it is sure."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

GAMMA = 0.2  # of the entropy bound, as published
FLOOR = -1e3  # log-probability of what cannot be drawn, so that 0 x log 0 is 0


def top1(logits: Tensor) -> Tensor:
    """The highest probability, whichever token was drawn.

    Args:
        logits: [..., V] float. What it was drawn from.

    Returns:
        [...] float.
    """
    return logits.softmax(-1).amax(-1)


def margin(logits: Tensor) -> Tensor:
    """By how much the highest probability exceeds the second.

    Args:
        logits: [..., V] float. What it was drawn from.

    Returns:
        [...] float.
    """
    first, second = logits.softmax(-1).topk(2, -1).values.unbind(-1)
    return first - second


def entropy(logits: Tensor, gamma: float = GAMMA) -> Tensor:
    """Lower bound on acceptance by the entropy H of the draft: 1 - sqrt(gamma H), at least 0.

    Args:
        logits: [..., V] float. What it was drawn from.
        gamma: its scale.

    Returns:
        [...] float.

    Reference: Agrawal, Jeon and Lee 2024, AdaEDL, https://arxiv.org/abs/2410.18351.
    """
    bound: Tensor = 1 - (gamma * spread(logits, logits.softmax(-1))).clamp_min(0).sqrt()
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


Signal = Callable[[Tensor], Tensor]
PROB = "prob"  # the drawn token's own probability, which needs no looking at the others
SIGNALS: dict[str, Signal] = {"top1": top1, "margin": margin, "entropy": entropy}
