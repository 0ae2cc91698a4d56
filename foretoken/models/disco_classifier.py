"""DISCO's classifier: how a draft's distribution looks -> chance that the target keeps the token drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from foretoken.models.predictor import AcceptancePredictor
from foretoken.types import Batch, Frontier

DEPTH = -2  # column of the features; the last one is the temperature
FLOOR = -1e3  # log-probability of what cannot be drawn, so that 0 x log 0 is 0


@dataclass(frozen=True, slots=True)
class ClassifierShape:
    """Size of a classifier.

    Attributes:
        top: how many of the highest probabilities it sees.
        hidden: width of its hidden layer.
    """

    top: int = 10
    hidden: int = 64


class DiscoClassifier(AcceptancePredictor):
    """Two layers over D = `top` + 4 numbers; see `describe`.

    Reference: Mamou et al. 2024, DISCO, https://arxiv.org/abs/2405.04304. The temperature is ours: what is accepted
    depends on it.
    """

    title: ClassVar[str] = "DISCO classifier"
    command: ClassVar[str] = "foretoken train disco"
    file_name: ClassVar[str] = "disco.safetensors"
    Shape: ClassVar[type[ClassifierShape]] = ClassifierShape

    def __init__(
        self, shape: ClassifierShape = ClassifierShape(), draft: str = "", card: dict[str, Any] | None = None
    ) -> None:
        super().__init__(shape, draft, card)
        self.inner = nn.Linear(shape.top + 4, shape.hidden)
        self.outer = nn.Linear(shape.hidden, 1)

    def logit(self, features: Tensor) -> Tensor:
        # The modules' own call costs as much as the arithmetic.
        inner = nn.functional.linear(features.float(), self.inner.weight, self.inner.bias)
        return nn.functional.linear(nn.functional.silu(inner), self.outer.weight, self.outer.bias).squeeze(-1)

    def judge(self, frontier: Frontier, batch: Batch) -> Tensor:
        """Calibrated probability that each leaf's own token is accepted, given that those before it are; 1 at the root.

        Returns:
            [B, F] float.
        """
        if frontier.logits is None:
            return frontier.prob
        heat = [row.request.sampling.temperature for row in batch.rows]
        there = partial(torch.Tensor.to, device=frontier.logits.device, non_blocking=True)
        temperature = there(torch.tensor(heat)[:, None].expand_as(frontier.prob))
        likely: Tensor = self(self.describe(frontier.logits, there(frontier.prob), there(frontier.depth), temperature))
        return likely.to(frontier.prob.device)

    def describe(self, logits: Tensor, prob: Tensor, depth: Tensor, temperature: Tensor) -> Tensor:
        """What the classifier sees of a drawn token: top probabilities, its own, entropy, depth, temperature.

        Args:
            logits: [..., V] float. What it was drawn from, before sampling parameters.
            prob: [...] float. The draft's probability of it.
            depth: [...] int64. 1 for the first candidate of a round.
            temperature: [...] float. Of the request.

        Returns:
            [..., D] float32.
        """
        logits = logits.float()
        law = logits.softmax(-1)
        entropy = -(law * logits.log_softmax(-1).clamp_min(FLOOR)).sum(-1)
        top = law.topk(min(self.shape.top, law.shape[-1]), -1).values
        rest = torch.stack([prob.float(), entropy, depth.float().log(), self.heat(temperature)], -1)
        missing = self.shape.top - top.shape[-1]  # a vocabulary may be smaller
        return torch.cat([nn.functional.pad(top, (0, missing)) if missing else top, rest], -1)
