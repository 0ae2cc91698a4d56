"""A calibrated probability that keeps itself calibrated: Platt scaling that learns from every outcome."""

from __future__ import annotations

import math

from torch import Tensor

FORGET = 0.01  # how much of what was learnt returns to the prior with every outcome
TRUST = 4.0  # outcomes the prior counts for
FLOOR = 1e-4  # scores are log-odds of probabilities at least this far from 0 and 1
BEGINNING = 24  # outcomes of a request that others learn from: texts begin alike, and end as each of them will
LATELY = 0.98  # how much of what was foretold still counts with the next outcome


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

    def observe(self, score: float, outcome: bool) -> float:
        """Learn what came of a score, and say how probable that was held to be."""
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
        return chance if outcome else 1 - chance


class Experts:
    """What a request has shown itself and what all requests like it have: the one that foretells better is believed.

    At first a request knows little, and a text of its own kind is not foretold by others.

    Args:
        own: of this request.
        common: of all of them. It learns from how they begin. None: the request is alone.

    Reference: Herbster and Warmuth 1998, Tracking the best expert, for the setting; here the better one by fading
    log-likelihood.
    """

    __slots__ = ("_common", "_count", "_lead", "_own")

    def __init__(self, own: Belief, common: Belief | None) -> None:
        self._own, self._common = own, common
        self._count, self._lead = 0, 0.0  # outcomes; by how much the common one foretold them better

    def observe(self, score: float, outcome: bool) -> Belief:
        """Learn what came of a score, and say whom to believe."""
        own = self._own.observe(score, outcome)
        if self._common is None:
            return self._own
        self._count += 1
        if self._count <= BEGINNING:
            common = self._common.observe(score, outcome)
        else:
            chance = self._common(score)
            common = chance if outcome else 1 - chance
        self._lead = LATELY * self._lead + math.log(max(common, FLOOR) / max(own, FLOOR))
        return self._common if self._lead >= 0 else self._own


def guess(temperature: float) -> Belief:
    """What is believed of a draft's tokens before any was judged."""
    return Belief(1.0, 1 - 0.75 * min(temperature, 1.0))


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
