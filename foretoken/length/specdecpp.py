"""SpecDec++: stop when the trained head thinks a rejection among the candidates has become too likely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from foretoken.errors import ConfigError
from foretoken.host import to_device, to_host
from foretoken.length.base import LengthPolicy, check_length, check_probability
from foretoken.models.acceptance_head import AcceptanceHead
from foretoken.types import Batch, Frontier


class SpecDecPP(LengthPolicy):
    """Go on while 1 - (product of the head's acceptance probabilities so far) stays at or below a threshold.

    The head scores a token once the drafter has read it, so the newest token is always unscored: it was drawn from the
    forward that scored the one before it, and is submitted for free. Going on costs a forward, though, and pays only if
    the newest token is accepted too, which `newest` takes into account.

    Reference: Huang, Guo and Wang 2024, SpecDec++, https://arxiv.org/abs/2405.19715. Cost per drafted token: one pass
    of the head. The head here is calibrated, so the same threshold means a smaller risk than in the paper, whose head
    is biased towards rejection by its training weights; and it reads the draft's probability of the token and the
    temperature beside the hidden state.
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
            newest: count the risk of the newest token too, guessed from its draft probability alone.
            file: the head's file; none takes the one beside the draft.
        """

        threshold: float = 0.5
        least: int = 1
        most: int = 20
        newest: bool = False
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
        depth, risk = frontier.depth, torch.zeros_like(frontier.prob)
        if frontier.hidden is not None:
            # What is known of the tokens before the newest one, and of the request: [B, 3].
            known = [(*row.memory.get(self, (1.0, 1.0)), row.request.sampling.temperature) for row in batch.rows]
            there = frontier.hidden.device
            prob = frontier.prob.to(there, non_blocking=True)
            held, parent, heat = to_device(known, there)[..., None].unbind(1)
            heat = heat.expand_as(prob)
            likely = self._head(self._head.describe(frontier.hidden, parent.expand_as(prob), heat))
            # The first candidate's forward read the root, which is committed: nothing to score yet.
            keep = torch.where(depth.to(there, non_blocking=True) > 1, held * likely, 1.0)
            risk = 1 - (keep * self._head.glance(prob, heat) if self._config.newest else keep)
            keep, risk = to_host(keep, risk)
            for row, *values in zip(batch.rows, keep[:, 0].tolist(), frontier.prob[:, 0].tolist(), strict=True):
                row.memory[self] = values
        return ((risk <= self._config.threshold) | (depth < self._config.least)) & (depth < self._config.most)
