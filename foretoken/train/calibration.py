"""How far predicted probabilities are from what happened, and how to mend it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foretoken.models.predictor import AcceptancePredictor

BINS = 10  # of the reliability table


def divergence(probability: Tensor, label: Tensor) -> float:
    """Mean binary Kullback-Leibler divergence of predictions from labels, in nats."""
    s = probability.double().clamp(1e-9, 1 - 1e-9)
    a = label.double()
    cross = -(a * s.log() + (1 - a) * (1 - s).log())
    entropy = -(torch.xlogy(a, a) + torch.xlogy(1 - a, 1 - a))
    return float((cross - entropy).mean())


def reliability(probability: Tensor, label: Tensor) -> list[dict[str, float]]:
    """Mean prediction, mean label and count per tenth of predicted probability; empty tenths are left out."""
    bins = (probability * BINS).long().clamp(0, BINS - 1)
    return [
        {
            "predicted": float(probability[bins == b].mean()),
            "observed": float(label[bins == b].mean()),
            "count": int((bins == b).sum()),
        }
        for b in range(BINS)
        if bool((bins == b).any())
    ]


def calibration_error(table: Sequence[dict[str, float]]) -> float:
    """Expected calibration error: |predicted - observed| averaged over predictions."""
    weight = sum(row["count"] for row in table)
    return sum(abs(row["predicted"] - row["observed"]) * row["count"] for row in table) / weight


def calibrate(net: AcceptancePredictor, features: Tensor, labels: Tensor) -> None:
    """Fit the net's scale and shift to unweighted labels (Platt scaling), in place."""
    logit = net.logit(features).detach()
    scale, shift = torch.ones((), requires_grad=True), torch.zeros((), requires_grad=True)
    solver = torch.optim.LBFGS([scale, shift], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(scale * logit + shift, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(closure)  # type: ignore[no-untyped-call]
    net.scale.copy_(scale.detach())
    net.shift.copy_(shift.detach())
