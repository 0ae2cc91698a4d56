"""A smaller language model drafts a chain, one forward per token."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from foretoken.draft.base import ChainDrafter
from foretoken.errors import ConfigError
from foretoken.host import whole
from foretoken.models.base import LanguageModel, Places, Stop, Watch
from foretoken.models.prefill import prefill
from foretoken.sampling import PathOf
from foretoken.types import Batch, Continuation, Draft, Row, Scores, Verdict, swap_remove


class ModelDrafter(ChainDrafter):
    """Sample from a draft model until the length policy stops.

    Its cache holds what it has read of the committed tokens, and catches up in the first forward of the next draft. A
    model that can go on by itself is let draw several tokens at once where temperature alone shapes its law.

    Reference: Leviathan et al. 2023, https://arxiv.org/abs/2211.17192. Cost per step: one draft forward per drafted
    token.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"prob", "logits", "hidden"})
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
        self._waiting: list[Row] = []  # the last rows of the batch, of which nothing was read yet
        self._rooted = 0  # 1 if the root is pending, before what was drafted
        self._owing = False  # whether random numbers are to be spent when it is known how many

    def start(self, rows: list[Row], hidden: list[Tensor | None]) -> None:
        # Where nothing is ever drafted, nothing needs to be read.
        self._waiting += rows

    def release(self, rows: Iterable[int]) -> None:
        if len(self._cache.lengths):
            self._read_waiting()  # or the others' places would differ from those in the batch
            self._cache.release(rows)
        elif self._waiting:
            gone = set(rows)
            for to, source in swap_remove(len(self._waiting), gone):
                self._waiting[to] = self._waiting[source]
            del self._waiting[len(self._waiting) - len(gone) :]

    def limits(self, batch: Batch) -> list[int]:
        return [self._model.max_length - len(row.tokens) for row in batch.rows]

    def score(self, batch: Batch, tokens: list[Tensor]) -> Scores:
        if len(tokens) > 1:
            return self._read(tokens[-1])
        self._rooted = 0
        return self._read_committed(batch)

    def alone(self, batch: Batch) -> int:
        return self._ahead(batch) if self._model.stops else 0

    def _ahead(self, batch: Batch) -> int:
        """How many tokens the model can draw by itself."""
        rows = batch.rows
        able = self._warmth(batch) is not None and min(len(row.tokens) for row in rows) > 1
        return self._model.ahead(len(rows)) if able else 0

    def candidates(
        self,
        batch: Batch,
        tokens: list[Tensor],
        certain: bool,
        grow: list[bool],
        path_of: PathOf,
        likely: int,
        watch: Watch | None = None,
    ) -> tuple[Continuation, bool]:
        self._read_waiting()
        rows, warmth = batch.rows, self._warmth(batch)
        count = min(likely, self._ahead(batch))
        if count < 1 or warmth is None or not all(grow):
            return super().candidates(batch, tokens, certain, grow, path_of, likely)
        at = [len(row.tokens) + len(tokens) - 2 for row in rows]
        if len(tokens) == 1:
            self._rooted = 1
            if max(map(int.__sub__, at, self._cache.lengths.tolist())) > 1:
                self._read_committed(batch, leave=2)
            newest = whole([row.tokens[-2:] for row in rows])
        else:
            newest = torch.stack([one.to(tokens[-1].device, non_blocking=True) for one in tokens[-2:]], 1)
        dice, numbers = batch.draft_rng, None
        if warmth and batch.coupled:
            numbers = dice.numbers(self._model.vocab_size, count, len(tokens) - 1)
        elif warmth:
            numbers = dice.peek(count)
        spends = warmth > 0 and not batch.coupled
        self._owing = isinstance(watch, Stop) and spends
        drawn = self._model.chain(newest, whole(at), self._cache, count, warmth, numbers, watch)
        return drawn, spends

    def _warmth(self, batch: Batch) -> float | None:
        """The temperature of all rows, if nothing else changes what the draft says."""
        warmths = {row.request.sampling.warmth(self.temperature) for row in batch.rows}
        return warmths.pop() if len(warmths) == 1 else None

    def _read_waiting(self) -> None:
        """Read the prompts of rows that joined, now that drafting is wanted."""
        if self._waiting:
            texts = [row.tokens[:-1][: self._model.max_length] for row in self._waiting]
            self._cache.extend(prefill(self._model, texts))
            self._waiting.clear()

    def _read_committed(self, batch: Batch, leave: int = 0) -> Scores:
        """Read the committed tokens the draft has not seen, all but the last `leave`, and commit them here too."""
        # A row that outgrew the draft's context is left alone: nothing more of it is read.
        end = self._model.max_length
        behind = [
            row.tokens[seen : min(len(row.tokens) - leave, end)]
            for row, seen in zip(batch.rows, self._cache.lengths.tolist(), strict=True)
        ]
        width = max(map(len, behind))
        # Padded on the left, so that the last column is the root in every row.
        tokens = whole([[0] * (width - len(new)) + new for new in behind])
        places = None
        if min(map(len, behind)) < width:
            column = torch.arange(width)
            place = column - whole([[width - len(new)] for new in behind])  # [B, width], negative in padding
            mask = ((place >= 0)[:, None] & (column <= column[:, None])) | torch.eye(width, dtype=torch.bool)
            places = Places((self._cache.lengths[:, None] + place).clamp_min(0), mask)
        scores = self._model.forward(tokens, self._cache, places, last=1)
        self._cache.commit([range(width - len(new), width) for new in behind])
        return scores

    def _read(self, tokens: Tensor) -> Scores:
        """Read one drafted token per row; the cache holds all the drafted tokens before it."""
        return self._model.forward(tokens[:, None], self._cache)

    def observe(self, batch: Batch, draft: Draft, verdict: Verdict, scores: Scores) -> None:
        if self._owing:
            batch.draft_rng.spend([size - 1 for size in draft.sizes])
            self._owing = False
        # The last drafted token is not kept, and mostly was not read, so a full acceptance leaves two to catch up with.
        if self._cache.pending:
            drafted = zip(verdict.counts, draft.sizes, strict=True)
            self._cache.commit([range(min(count, max(size - 2, 0)) + self._rooted) for count, size in drafted])
