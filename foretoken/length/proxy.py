"""SpecDec++'s stopping rule without a head: the draft's own certainty stands for the chance of acceptance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from foretoken.errors import ConfigError, did_you_mean
from foretoken.length.base import UNPRICED, Growth, LengthPolicy, check_length, check_probability, leaves, single
from foretoken.length.signals import GAMMA, PROB, SIGNALS, entropy
from foretoken.models.base import Stop
from foretoken.types import Batch, Continuation, Frontier


class Proxy(LengthPolicy):
    """Go on while 1 - (product of a certainty of the draft over all candidates) stays at or below a threshold.

    `confidence` looks at the newest token alone; this looks at the whole draft, since one likely rejection makes all
    that follows worthless. Unlike a head, which must read a token first, the certainty is known as soon as the token
    is drawn. It is not calibrated, so thresholds of different signals mean different risks. The default suits a draft
    step of a tenth to a third of a target step; a cheaper draft wants a higher one.

    Reference: the rule of Huang, Guo and Wang 2024, SpecDec++, https://arxiv.org/abs/2405.19715; the signal `entropy`
    of Agrawal, Jeon and Lee 2024, AdaEDL, https://arxiv.org/abs/2410.18351.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options.

        Attributes:
            threshold: stop above this estimated probability of a rejection among the candidates.
            signal: prob (of the drawn token), top1 (highest probability), margin (highest minus second), or entropy
                (1 - sqrt(gamma H), a bound on acceptance).
            gamma: scale of the entropy bound.
            most: never more than this many tokens.
        """

        threshold: float = 0.7
        signal: str = "prob"
        gamma: float = GAMMA
        most: int = 20

        def __post_init__(self) -> None:
            check_length("most", self.most)
            check_probability("threshold", self.threshold)
            if self.signal not in (names := [PROB, *SIGNALS]):
                raise ConfigError(f"there is no signal `{self.signal}`", hint=did_you_mean(self.signal, names))
            if self.gamma < 0:
                raise ConfigError(f"gamma cannot be {self.gamma}", hint="it scales an entropy; 0 ignores it")

    def __init__(self, config: Config | None = None) -> None:
        self._config = config or self.Config()
        bound = partial(entropy, gamma=self._config.gamma)
        self._signal = bound if self._config.signal == "entropy" else SIGNALS.get(self._config.signal)

    def look(self, drawn: Continuation) -> Tensor | None:
        return None if self._signal is None or drawn.logits is None else self._signal(drawn.logits)[..., None]

    def grow(self, frontier: Frontier, batch: Batch) -> Growth:
        wanted = []
        for row, keep, (depth, _) in zip(batch.rows, self._certainties(frontier), leaves(frontier), strict=True):
            if depth:
                keep *= row.memory[self]
            row.memory[self] = keep
            wanted.append(1 - keep <= self._config.threshold and depth < self._config.most)
        return single(wanted)

    def stop(self, batch: Batch, most: int) -> Stop:
        return Stop(
            [min(most, self._config.most, UNPRICED)] * len(batch.rows), torch.zeros(len(batch.rows), 0), self._wants
        )

    def _wants(self, drawn: Continuation, given: Tensor) -> Tensor:
        certain = drawn.prob if self._signal is None or drawn.logits is None else self._signal(drawn.logits)
        return 1 - certain.double().prod(1) <= self._config.threshold

    def _certainties(self, frontier: Frontier) -> list[float]:
        """Of every row's leaf; 1 at the root, which is committed."""
        if self._signal is None or frontier.drawn is None:
            return [prob for _, prob in leaves(frontier)]
        if (seen := frontier.seen) is None:
            assert frontier.logits is not None, "the drafter provides them"
            seen = self._signal(frontier.logits)[..., None]
        return list(seen[:, 0, 0].tolist())
