"""A smaller language model drafts a chain, one forward per token."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from foretoken.draft.base import ChainDrafter
from foretoken.errors import ConfigError
from foretoken.models.base import LanguageModel
from foretoken.models.prefill import prefill
from foretoken.types import Batch, Draft, Row, Scores, Verdict


class ModelDrafter(ChainDrafter):
    """Sample from a draft model until the length policy stops.

    Its cache holds what it has read of the committed tokens, and catches up in the first forward of the next draft.

    Reference: Leviathan et al. 2023, https://arxiv.org/abs/2211.17192. Cost per step: one draft forward per drafted
    token.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"logits", "hidden"})
    uses_model: ClassVar[bool] = True

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options.

        Attributes:
            temperature: temperature of the draft; none takes each request's own.
        """

        temperature: float | None = None

        def __post_init__(self) -> None:
            if self.temperature is not None and self.temperature < 0:
                raise ConfigError(f"temperature cannot be {self.temperature}", hint="0 drafts the most likely token")

    def __init__(self, config: Config | None = None, model: LanguageModel | None = None) -> None:
        if model is None:
            raise ConfigError("the drafter `model` needs a draft model", hint="give one with `--draft`")
        self.temperature = (config or ModelDrafter.Config()).temperature
        self._model = model
        self._cache = model.new_cache(0)

    def start(self, rows: list[Row], hidden: list[Tensor | None]) -> None:
        self._cache.extend(prefill(self._model, [row.tokens[:-1][: self._model.max_length] for row in rows]))

    def release(self, rows: Iterable[int]) -> None:
        self._cache.release(rows)

    def limits(self, batch: Batch) -> list[int]:
        return [self._model.max_length - len(row.tokens) for row in batch.rows]

    def score(self, batch: Batch, tokens: list[Tensor]) -> Scores:
        return self._read_committed(batch) if len(tokens) == 1 else self._read(tokens[-1], len(tokens) - 1)

    def _read_committed(self, batch: Batch) -> Scores:
        """Read the committed tokens the draft has not seen, the root last, and commit them here too."""
        # A row that outgrew the draft's context is left alone: nothing more of it is read.
        end = self._model.max_length
        behind = [row.tokens[seen:end] for row, seen in zip(batch.rows, self._cache.lengths.tolist(), strict=True)]
        width = max(map(len, behind))
        # Padded on the left, so that the last column is the root in every row.
        tokens = torch.tensor([[0] * (width - len(new)) + new for new in behind])
        column = torch.arange(width)
        spare = torch.tensor([[width - len(new)] for new in behind])
        place = column - spare  # [B, width], negative in padding
        mask = ((place >= 0)[:, None] & (column <= column[:, None])) | torch.eye(width, dtype=torch.bool)
        positions = (self._cache.lengths[:, None] + place).clamp_min(0)
        scores = self._model.forward(tokens, positions, mask, self._cache, last=1)
        self._cache.commit(spare + column, width - spare[:, 0])
        return scores

    def _read(self, tokens: Tensor, depth: int) -> Scores:
        """Read one drafted token per row; the cache holds all the drafted tokens before it."""
        mask = torch.ones(len(tokens), 1, depth, dtype=torch.bool)
        positions = (self._cache.lengths[:, None] + (depth - 1)).clamp_max(self._model.max_length - 1)
        return self._model.forward(tokens[:, None], positions, mask, self._cache)

    def observe(self, batch: Batch, draft: Draft, verdict: Verdict, scores: Scores) -> None:
        # The last drafted token was never read, so a full acceptance leaves two tokens to catch up with.
        if self._cache.pending:
            kept = torch.minimum(verdict.counts, (draft.sizes - 2).clamp_min(0))
            self._cache.commit(torch.arange(self._cache.pending).expand(len(kept), -1), kept)
