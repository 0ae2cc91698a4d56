"""DISCO's classifier: how a draft's distribution looks -> chance that the target keeps the token drawn from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from foretoken.length.base import leaves
from foretoken.length.signals import spread
from foretoken.models.predictor import HOTTEST, AcceptancePredictor
from foretoken.types import Batch, Continuation, Frontier

DEPTH = -2  # column of the features; the last one is the temperature


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

    def to(self, *_: Any, **__: Any) -> Self:
        """Stays on the CPU, where decisions are made: what `look` finds needs no weights."""
        return self

    def logit(self, features: Tensor) -> Tensor:
        inner, offset, outer, level = self._weights
        hidden = nn.functional.silu(nn.functional.linear(features.float(), inner, offset))
        return nn.functional.linear(hidden, outer, level).squeeze(-1)

    @cached_property
    def _weights(self) -> tuple[Tensor, ...]:
        """Found once: to look up a module's attributes costs as much as the arithmetic."""
        return self.inner.weight, self.inner.bias, self.outer.weight, self.outer.bias

    def judge(self, frontier: Frontier, batch: Batch) -> list[float]:
        """Calibrated probability that each row's token is accepted, given that those before it are; 1 at the root."""
        newest = leaves(frontier)
        seen = frontier.seen
        if seen is None and frontier.logits is not None:
            seen = self._look(frontier.logits, torch.tensor([[prob] for _, prob in newest]))
        if seen is None:
            return [prob for _, prob in newest]
        known = torch.tensor(
            [
                [math.log(depth), min(row.request.sampling.temperature, HOTTEST)]
                for (depth, _), row in zip(newest, batch.rows, strict=True)
            ]
        )
        return self.chances(self.logit(torch.cat([seen[:, 0], known], 1)).tolist())

    def look(self, drawn: Continuation) -> Tensor:
        """[B, K, D-2] float32. All that `judge` needs of drawn tokens: what `describe` says without depth and heat."""
        assert drawn.logits is not None, "the drafter provides them"
        return self._look(drawn.logits, drawn.prob)

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
        known = torch.stack([depth.float().log(), self.heat(temperature)], -1)
        return torch.cat([self._look(logits, prob), known], -1)

    def _look(self, logits: Tensor, prob: Tensor) -> Tensor:
        """What `describe` returns, but for the last two.

        Args:
            logits: [..., V] float. As in `describe`.
            prob: [...] float. As in `describe`.
        """
        logits = logits.float()
        law = logits.softmax(-1)
        top = law.topk(min(self.shape.top, law.shape[-1]), -1).values
        if missing := self.shape.top - top.shape[-1]:  # a vocabulary may be smaller
            top = nn.functional.pad(top, (0, missing))
        return torch.cat([top, prob.float()[..., None], spread(logits, law)[..., None]], -1)
