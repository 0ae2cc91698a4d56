"""Stop when the draft was not sure of its last token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from foretoken.errors import ConfigError
from foretoken.length.base import UNPRICED, Growth, LengthPolicy, check_length, leaves, single
from foretoken.models.base import Stop
from foretoken.types import Batch, Continuation, Draft, Frontier, Row, Verdict

FALSE_NEGATIVE_COST = 3
FEWEST_SAMPLES = 5


class Confidence(LengthPolicy):
    """Go on while the draft model's own probability of the token it just drew reaches a threshold.

    With `adaptive`, each request's threshold moves to the point of its own ROC curve (draft probability against being
    accepted) that minimises false positives + 3 x false negatives, once both outcomes were seen. The default threshold
    suits a draft step of about a third of a target step; a cheaper draft wants a lower one (published: 0.4).

    Reference: Mamou et al. 2024, the dynamic mode of `transformers`' assisted generation. There the threshold adapts
    over all requests; here over one, so that requests do not influence each other.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prob"})

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options.

        Attributes:
            threshold: least draft probability of the last token to go on, in [0, 1].
            most: never more than this many tokens.
            adaptive: move the threshold by what was accepted.
        """

        threshold: float = 0.6
        most: int = 20
        adaptive: bool = False

        def __post_init__(self) -> None:
            check_length("most", self.most)
            if not 0 <= self.threshold <= 1:
                raise ConfigError(f"threshold cannot be {self.threshold}", hint="it is a probability, in [0, 1]")

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def grow(self, frontier: Frontier, batch: Batch) -> Growth:
        return single(
            prob >= self._threshold(row) and depth < self.config.most
            for (depth, prob), row in zip(leaves(frontier), batch.rows, strict=True)
        )

    def stop(self, batch: Batch, most: int) -> Stop:
        given = torch.tensor([[self._threshold(row)] for row in batch.rows], dtype=torch.float64)
        return Stop([min(most, self.config.most, UNPRICED)] * len(given), given, self._wants)

    @staticmethod
    def _wants(drawn: Continuation, given: Tensor) -> Tensor:
        return drawn.prob[:, -1] >= given[:, 0]

    def _threshold(self, row: Row) -> float:
        return row.memory[self][0] if self in row.memory else self.config.threshold

    def observe(self, batch: Batch, draft: Draft, verdict: Verdict) -> None:
        if not self.config.adaptive or draft.prob is None:
            return
        probs, sizes = draft.prob, draft.sizes
        for b, (row, accepted) in enumerate(zip(batch.rows, verdict.counts, strict=True)):
            threshold, samples = row.memory.get(self, (self.config.threshold, []))
            # Tokens after the first rejection were never judged on their own merit, so they are left out.
            judged = min(accepted + 1, sizes[b] - 1)
            samples = samples + [(probs[b][i + 1], i < accepted) for i in range(judged)]
            row.memory[self] = (roc_threshold(samples, threshold), samples)


def roc_threshold(samples: list[tuple[float, bool]], otherwise: float) -> float:
    """Threshold that minimises false positive rate + 3 x false negative rate; the highest one among equals.

    Args:
        samples: (draft probability, accepted) of judged tokens.
        otherwise: returned while there are too few samples, or one outcome is missing.
    """
    positives = sum(accepted for _, accepted in samples)
    negatives = len(samples) - positives
    if len(samples) <= FEWEST_SAMPLES or not positives or not negatives:
        return otherwise
    # Costs times positives x negatives, so that they are whole numbers and equal ones are equal.
    best, threshold = FALSE_NEGATIVE_COST * positives * negatives, 1.0  # above everything: all accepted are missed
    true_positives = false_positives = 0
    ordered = sorted(samples, reverse=True)
    for i, (prob, accepted) in enumerate(ordered):
        true_positives += accepted
        false_positives += not accepted
        if i + 1 < len(ordered) and ordered[i + 1][0] == prob:
            continue
        cost = false_positives * positives + FALSE_NEGATIVE_COST * (positives - true_positives) * negatives
        if cost < best:
            best, threshold = cost, prob
    return threshold
