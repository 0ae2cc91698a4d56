"""What is trained to predict acceptance for one draft: a small calibrated net in a file beside that draft."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from foretoken.models.bound import BoundNet

TEMPERATURE = -1  # column of every predictor's features: what is accepted depends on it
HOTTEST = 2.0  # temperatures above are taken for this one


class AcceptancePredictor(BoundNet, ABC):
    """Features of a drafted token -> chance that the target keeps it; Platt scaling makes it a calibrated probability.

    Bound to the draft it was trained on, since another draft's features mean nothing to it. What takes numbers is for
    deciding while drafting, and takes the weights for final from its first answer on.
    """

    role: ClassVar[str] = "draft"
    instead: ClassVar[str] = "choose another `--length`"
    scale: Tensor
    shift: Tensor

    def __init__(self, shape: Any, draft: str = "", card: dict[str, Any] | None = None) -> None:
        super().__init__(shape, draft, card)
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("shift", torch.zeros(()))

    @abstractmethod
    def logit(self, features: Tensor) -> Tensor:
        """Uncalibrated log-odds of acceptance.

        Args:
            features: [..., D] float.

        Returns:
            [...] float32.
        """

    def forward(self, features: Tensor) -> Tensor:
        """Calibrated probability of acceptance ([..., D] float -> [...] float32)."""
        return torch.sigmoid(torch.addcmul(self.shift, self.scale, self.logit(features)))

    def chances(self, logits: Iterable[float]) -> list[float]:
        """The same for numbers."""
        scale, shift = self._calibration
        return [probability(shift + scale * logit) for logit in logits]

    @cached_property
    def _calibration(self) -> tuple[float, float]:
        return float(self.scale), float(self.shift)

    @staticmethod
    def heat(temperature: Tensor) -> Tensor:
        """The temperature as a predictor sees it ([...] float -> [...] float32)."""
        return temperature.float().clamp_max(HOTTEST)


def probability(log_odds: float) -> float:
    """Probability of these log-odds, however large they are."""
    return 0.5 + 0.5 * math.tanh(log_odds / 2)
