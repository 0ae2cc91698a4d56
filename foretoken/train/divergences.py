"""How far a draft's next-token law is from its target's: what DistillSpec minimises.

Reference: Zhou et al. 2024, DistillSpec, https://arxiv.org/abs/2310.08461, section 3 and appendix A.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from foretoken.errors import ConfigError, did_you_mean

Divergence = Callable[[Tensor, Tensor], Tensor]


def fkl(p: Tensor, q: Tensor) -> Tensor:
    """Forward Kullback-Leibler divergence, sum of p log(p / q): the draft covers all that the target says.

    Args:
        p: [M, V] float. Log-probabilities of the target.
        q: [M, V] float. Of the draft.

    Returns:
        [M] float, in nats.
    """
    return _kl(p, q)


def rkl(p: Tensor, q: Tensor) -> Tensor:
    """Reverse Kullback-Leibler divergence, sum of q log(q / p): the draft says only what the target would.

    Args and returns as `fkl`.
    """
    return _kl(q, p)


def jsd(p: Tensor, q: Tensor, beta: float = 0.5) -> Tensor:
    """Generalised Jensen-Shannon divergence, b KL(p||m) + (1 - b) KL(q||m) with m = b p + (1 - b) q.

    Divided by b it tends to `fkl` as b goes to 0, and by 1 - b to `rkl` as b goes to 1. Args and returns as `fkl`;
    beta is between 0 and 1.
    """
    ends = torch.tensor([beta, 1 - beta], dtype=p.dtype, device=p.device).log()
    m = torch.logaddexp(p + ends[0], q + ends[1])
    return beta * _kl(p, m) + (1 - beta) * _kl(q, m)


def tvd(p: Tensor, q: Tensor) -> Tensor:
    """Total variation distance, half the sum of |p - q|: one minus the acceptance rate itself.

    Args and returns as `fkl`.
    """
    return (p.exp() - q.exp()).abs().sum(-1) / 2


DIVERGENCES: dict[str, Divergence] = {"fkl": fkl, "rkl": rkl, "jsd": jsd, "tvd": tvd}


def find_divergence(name: str, beta: float = 0.5) -> Divergence:
    """A divergence by name.

    Raises:
        ConfigError: there is none, or beta does not fit.
    """
    if name not in DIVERGENCES:
        raise ConfigError(f"unknown divergence `{name}`", hint=did_you_mean(name, DIVERGENCES))
    if not 0 < beta < 1:
        raise ConfigError(f"beta cannot be {beta}", hint="it is between 0 and 1; near 0 `jsd` is like `fkl`")
    return (lambda p, q: jsd(p, q, beta)) if name == "jsd" else DIVERGENCES[name]


def _kl(p: Tensor, q: Tensor) -> Tensor:
    # Where p is 0 so is the term, though its logarithm is not a number that can be multiplied.
    return torch.where(p > -torch.inf, p.exp() * (p - q), 0).sum(-1)


def lenient(p: Tensor, q: Tensor, lenience: float) -> tuple[Tensor, Tensor]:
    """What accepting with probability min(1, p / (l q)) would give: lossy for l < 1.

    After a rejection a token of the positive part of p / l - q is drawn, rescaled.

    Args:
        p: [M, V] float. Probabilities of the target.
        q: [M, V] float. Of the draft.
        lenience: l, above 0 and at most 1.

    Returns:
        [M] float. Acceptance rate.
        [M] float. Total variation distance of the emitted token's law from the target's.
    """
    raised = p / lenience
    kept = torch.minimum(raised, q)
    left = (raised - q).clamp_min(0)
    rejected = 1 - kept.sum(-1, keepdim=True)
    emitted = kept + rejected * left / left.sum(-1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
    return kept.sum(-1), (emitted - p).abs().sum(-1) / 2
