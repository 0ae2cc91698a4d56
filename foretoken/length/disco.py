"""DISCO: a small classifier on the draft's distribution decides after each token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from foretoken.errors import ConfigError
from foretoken.length.base import Growth, LengthPolicy, check_length, check_probability, single
from foretoken.models.disco_classifier import DiscoClassifier
from foretoken.types import Batch, Continuation, Frontier


class Disco(LengthPolicy):
    """Go on while the classifier's probability that the newest token is accepted reaches a threshold.

    It reads the distribution the token was drawn from, so it judges the newest token at once, where a head on hidden
    states would first need a forward to read it.

    Reference: Mamou et al. 2024, DISCO, https://arxiv.org/abs/2405.04304. Cost per drafted token: one pass of the
    classifier.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    trained: ClassVar[type[DiscoClassifier]] = DiscoClassifier

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options.

        Attributes:
            threshold: least probability of acceptance of the last token to go on, in [0, 1].
            most: never more than this many tokens.
            file: the classifier's file; none takes the one beside the draft.
        """

        threshold: float = 0.7
        most: int = 20
        file: str | None = None

        def __post_init__(self) -> None:
            check_length("most", self.most)
            check_probability("threshold", self.threshold)

    def __init__(self, config: Config | None = None, classifier: DiscoClassifier | None = None) -> None:
        if classifier is None:
            raise ConfigError("DISCO needs a classifier", hint="train one for the draft in use")
        self._config = config or self.Config()
        self._classifier = classifier

    def look(self, drawn: Continuation) -> Tensor | None:
        return self._classifier.look(drawn)

    def grow(self, frontier: Frontier, batch: Batch) -> Growth:
        of, likely = self._config, self._classifier.judge(frontier, batch)
        return single(
            chance >= of.threshold and depth < of.most for chance, (depth,) in zip(likely, frontier.depth, strict=True)
        )
