"""A calibrated probability that keeps itself calibrated: Platt scaling that learns from every outcome."""

from __future__ import annotations

import math

from torch import Tensor

FORGET = 0.01  # how much of what was learnt returns to the prior with every outcome
TRUST = 4.0  # outcomes the prior counts for
FLOOR = 1e-4  # scores are log-odds of probabilities at least this far from 0 and 1


class Belief:
    """Probability of an outcome given a score: sigmoid(shift + scale * score), learnt one outcome at a time.

    Each outcome is one Newton step on the log-likelihood with a Gaussian prior, in which old outcomes slowly fade
    (recursive least squares with forgetting). Costs a few microseconds, no tensors.

    Args:
        shift: prior mean.
        scale: prior mean.

    Reference: Platt 1999 for the form.
    """

    __slots__ = ("_cross", "_prior", "_scale", "_shift", "scale", "shift")

    def __init__(self, shift: float, scale: float) -> None:
        self._prior = (shift, scale)
        self.shift, self.scale = shift, scale
        self._shift, self._cross, self._scale = TRUST, 0.0, TRUST  # precision matrix of (shift, scale)

    def __call__(self, score: float) -> float:
        """Probability given a score."""
        return 1 / (1 + math.exp(-(self.shift + self.scale * score)))

    def given(self, probability: float) -> float:
        """What it says of the log-odds of a probability, in one operation."""
        bounded = min(max(probability, FLOOR), 1 - FLOOR)
        return 1 / (1 + math.exp(-self.shift) * math.pow(1 / bounded - 1, self.scale))

    def observe(self, score: float, outcome: bool) -> None:
        """Learn what came of a score."""
        chance = self(score)
        weight, keep = chance * (1 - chance), 1 - FORGET
        self._shift = keep * self._shift + FORGET * TRUST + weight
        self._cross = keep * self._cross + weight * score
        self._scale = keep * self._scale + FORGET * TRUST + weight * score * score
        error = outcome - chance
        up = error + FORGET * TRUST * (self._prior[0] - self.shift)
        tilt = error * score + FORGET * TRUST * (self._prior[1] - self.scale)
        volume = self._shift * self._scale - self._cross * self._cross
        self.shift += (self._scale * up - self._cross * tilt) / volume
        self.scale += (self._shift * tilt - self._cross * up) / volume


def chances(shift: Tensor, scale: Tensor, probabilities: Tensor) -> Tensor:
    """What a belief says of the log-odds of probabilities, on a device.

    Args:
        shift: [B, 1] float. Of the belief.
        scale: [B, 1] float. Of the belief.
        probabilities: [B, K] float.

    Returns:
        [B, K] float.
    """
    return (shift + scale * probabilities.double().logit(FLOOR)).sigmoid()


def log_odds(probability: float) -> float:
    """Log-odds of a probability, finite for 0 and 1."""
    bounded = min(max(probability, FLOOR), 1 - FLOOR)
    return math.log(bounded / (1 - bounded))
