"""SpecDec++: stop when the trained head thinks a rejection among the candidates has become too likely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from foretoken.errors import ConfigError
from foretoken.length.base import LengthPolicy, check_length, check_probability
from foretoken.models.acceptance_head import AcceptanceHead
from foretoken.types import Batch, Frontier


class SpecDecPP(LengthPolicy):
    """Go on while 1 - (product of the head's acceptance probabilities so far) stays at or below a threshold.

    The head scores a token once the drafter has read it, so the newest token is always unscored: it was drawn from the
    forward that scored the one before it, and is submitted for free.

    Reference: Huang, Guo and Wang 2024, SpecDec++, https://arxiv.org/abs/2405.19715. Cost per drafted token: one pass
    of the head. The head here is calibrated, so the same threshold means a smaller risk than in the paper, whose head
    is biased towards rejection by its training weights.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"hidden"})
    trained: ClassVar[type[AcceptanceHead]] = AcceptanceHead

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options.

        Attributes:
            threshold: stop above this probability of a rejection among the candidates.
            least: go on below this many tokens.
            most: never more than this many tokens.
            file: the head's file; none takes the one beside the draft.
        """

        threshold: float = 0.5
        least: int = 1
        most: int = 20
        file: str | None = None

        def __post_init__(self) -> None:
            check_length("least", self.least)
            check_length("most", self.most, self.least)
            check_probability("threshold", self.threshold)

    def __init__(self, config: Config | None = None, head: AcceptanceHead | None = None) -> None:
        if head is None:
            raise ConfigError("SpecDec++ needs an acceptance head", hint="train one for the draft in use")
        self._config = config or self.Config()
        self._head = head

    def grow(self, frontier: Frontier, batch: Batch) -> Tensor:
        depth = frontier.depth[:, 0]
        if frontier.hidden is None:
            keep = torch.ones_like(frontier.prob)
        else:
            held = [row.memory.get(self, 1.0) for row in batch.rows]
            before = torch.tensor(held, device=depth.device)[:, None]
            # The first candidate's forward read the root, which is committed: nothing to score yet.
            keep = torch.where(frontier.depth > 1, before * self._head(frontier.hidden), 1.0)
        for row, value in zip(batch.rows, keep[:, 0].tolist(), strict=True):
            row.memory[self] = value
        calm = 1 - keep <= self._config.threshold
        return (calm | (frontier.depth < self._config.least)) & (frontier.depth < self._config.most)
