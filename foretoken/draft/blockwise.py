"""Parallel heads on the target's last hidden state draft a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from foretoken.draft.base import ChainDrafter
from foretoken.errors import ConfigError, did_you_mean
from foretoken.length.base import Trained
from foretoken.models.block_heads import BlockHeads
from foretoken.models.rescoring import Global, Independent, Local
from foretoken.types import Batch, Draft, Row, Scores, Verdict

RESCORERS = ("none", "ngram", "neural", "auto")


class Blockwise(ChainDrafter):
    """Heads on the target's newest hidden state say what comes two, three, ... tokens later; a rescorer makes it text.

    The heads know neither the root nor each other's choice. `ngram` and `neural` choose among the most likely tokens of
    each head those that go together: the best path (or one drawn) through all of them, or one after the other.
    A block begins at the state that chose the root, so a text's first step drafts if its prompt has two tokens or more.

    Reference: Stern et al. 2018, Blockwise Parallel Decoding, https://arxiv.org/abs/1811.03115; Kim et al. 2024,
    https://arxiv.org/abs/2404.09221. Cost per step: a head, two small matrices and the output embedding, per drafted
    token. The paper rescores drafts for greedy decoding; here a rescored place has a law, so that any temperature is
    exact, and the small network starts from the target's state.
    """

    trained: ClassVar[type[Trained]] = BlockHeads
    reads_target: ClassVar[bool] = True

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options.

        Attributes:
            file: what `foretoken train blockwise` wrote for the target.
            rescore: "none", "ngram", "neural", or "auto": what was best in training.
            top: candidates per head that are rescored; none takes what was best in training.
            weight: of the rescorer; none takes what was best in training.
        """

        file: str | None = None
        rescore: str = "auto"
        top: int | None = None
        weight: float | None = None

        def __post_init__(self) -> None:
            if self.rescore not in RESCORERS:
                raise ConfigError(f"rescore cannot be {self.rescore!r}", hint=did_you_mean(self.rescore, RESCORERS))
            if self.top is not None and self.top < 1:
                raise ConfigError(f"top cannot be {self.top}", hint="a head has at least one candidate")
            if self.weight is not None and self.weight < 0:
                raise ConfigError(f"weight cannot be {self.weight}", hint="0 leaves the heads as they are")

    def __init__(self, config: Config | None = None, net: BlockHeads | None = None) -> None:
        if net is None:
            raise ConfigError("the drafter `blockwise` needs trained heads", hint="give them as `blockwise:FILE`")
        self._net, self._config = net, config or self.Config()
        self._block: Independent | None = None

    def start(self, rows: list[Row], hidden: list[Tensor | None]) -> None:
        for row, states in zip(rows, hidden, strict=True):
            row.memory[self] = None if states is None else states[-1]

    def observe(self, batch: Batch, draft: Draft, verdict: Verdict, scores: Scores) -> None:
        assert scores.hidden is not None, "every backend hands out hidden states"
        for b, (row, path) in enumerate(zip(batch.rows, verdict.path, strict=True)):
            node = path[-1] if path else 0
            row.memory[self] = scores.hidden[b, node]

    def limits(self, batch: Batch) -> list[int]:
        return [0 if row.memory[self] is None else self._net.shape.heads for row in batch.rows]

    def score(self, batch: Batch, tokens: list[Tensor]) -> Scores:
        if len(tokens) == 1:
            self._block = self._begin(batch)
        assert self._block is not None, "a block begins at its root"
        return Scores(self._block.score(tokens)[:, None], None)

    def _begin(self, batch: Batch) -> Independent:
        """The heads of every row at its newest state, with the rescorer that was asked for."""
        shape, config = self._net.shape, self._config
        nothing = torch.zeros(shape.hidden_size, device=batch.device)
        states = [row.memory[self] for row in batch.rows]
        like = next(state for state in states if state is not None)
        hidden = torch.stack([nothing.to(like) if state is None else state for state in states])
        rescore = shape.rescore if config.rescore == "auto" else config.rescore
        top = shape.top if config.top is None else config.top
        weight = shape.weight if config.weight is None else config.weight
        if rescore == "none":
            return Independent(self._net, hidden)
        if rescore == "neural":
            return Local(self._net, hidden, top, weight)
        width = self._net.ngram.order - 1
        newest = [([0] * width + row.tokens)[len(row.tokens) :] for row in batch.rows]
        known = torch.tensor(newest, dtype=torch.int64, device=batch.device)
        warmth = torch.tensor([row.request.sampling.temperature for row in batch.rows], device=batch.device)
        return Global(self._net, hidden, top, weight, known, warmth)
