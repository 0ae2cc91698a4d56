"""SpecDec++: stop when the trained head thinks a rejection among the candidates has become too likely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from foretoken.errors import ConfigError
from foretoken.length.base import UNPRICED, Growth, LengthPolicy, check_length, check_probability, leaves, single
from foretoken.models.acceptance_head import AcceptanceHead
from foretoken.models.base import Stop
from foretoken.types import Batch, Continuation, Frontier, Row


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

    def look(self, drawn: Continuation) -> Tensor | None:
        return None if drawn.hidden is None else self._head.read(drawn.hidden)

    def grow(self, frontier: Frontier, batch: Batch) -> Growth:
        of, newest = self._config, leaves(frontier)
        keeps = [1.0] * len(newest)
        # The first candidate's forward read the root, which is committed: nothing to score yet.
        if any(depth > 1 for depth, _ in newest) and (read := self._head.heard(frontier)) is not None:
            held, parents = zip(*(row.memory[self] for row in batch.rows), strict=True)
            likely = self._head.judge(read, parents, [_heat(row) for row in batch.rows])
            keeps = [k * p if depth > 1 else 1.0 for k, p, (depth, _) in zip(held, likely, newest, strict=True)]
        wanted = []
        for row, keep, (depth, prob) in zip(batch.rows, keeps, newest, strict=True):
            row.memory[self] = keep, prob
            if of.newest and depth:
                keep *= self._head.glance(prob, _heat(row))
            wanted.append((1 - keep <= of.threshold or depth < of.least) and depth < of.most)
        return single(wanted)

    def stop(self, batch: Batch, most: int) -> Stop:
        given = torch.tensor([[_heat(row)] for row in batch.rows], dtype=torch.float64)
        return Stop([min(most, self._config.most, UNPRICED)] * len(given), given, self._wants)

    def _wants(self, drawn: Continuation, given: Tensor) -> Tensor:
        of, heat = self._config, given[:, :1].float()
        assert drawn.hidden is not None, "the drafter provides it"
        # A token's state is found when it is read, to draw the next one.
        read = self._head.describe(drawn.hidden[:, 1:], drawn.prob[:, :-1], heat.expand(-1, drawn.prob.shape[1] - 1))
        keep = self._head(read).double().prod(1)
        if of.newest:
            newest = self._head.describe(drawn.hidden[:, -1], drawn.prob[:, -1], heat[:, 0])
            keep = keep * self._head.glance_logit(newest).double().sigmoid()
        wanted: Tensor = 1 - keep <= of.threshold
        return wanted.logical_or(given[:, 0] >= 0) if drawn.prob.shape[1] < of.least else wanted


def _heat(row: Row) -> float:
    return row.request.sampling.temperature
