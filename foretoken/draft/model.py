"""A smaller language model drafts a chain, one forward per token."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from foretoken.draft.base import Drafter
from foretoken.errors import ConfigError
from foretoken.length.base import LengthPolicy
from foretoken.models.base import LanguageModel
from foretoken.models.prefill import prefill
from foretoken.sampling import distribution
from foretoken.shape.base import TreeShape
from foretoken.types import Batch, Draft, Drawn, Frontier, Row, Scores, Verdict


class ModelDrafter(Drafter):
    """Sample from a draft model until the length policy stops, keeping the law `q` of every draw.

    The draft applies the request's own sampling parameters (penalties follow the drafted path), which is what makes
    acceptance likely; exactness does not depend on it. Its cache holds what it has read of the committed tokens, and
    catches up in the first forward of the next draft.

    Reference: Leviathan et al. 2023, https://arxiv.org/abs/2211.17192. Cost per step: one draft forward per drafted
    token.
    """

    drawn: ClassVar[Drawn] = Drawn.IID
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
        self._temperature = (config or ModelDrafter.Config()).temperature
        self._model = model
        self._cache = model.new_cache(0)

    def start(self, rows: list[Row]) -> None:
        self._cache.extend(prefill(self._model, [row.tokens[:-1][: self._model.max_length] for row in rows]))

    def release(self, rows: Iterable[int]) -> None:
        self._cache.release(rows)

    def draft(self, batch: Batch, length: LengthPolicy, shape: TreeShape, max_nodes: int) -> Draft:
        rows, roots = batch.rows, batch.roots
        room = [min(row.room, max_nodes - 1, self._model.max_length - len(row.tokens)) for row in rows]
        sure = torch.ones(len(rows), 1, device=roots.device)
        # Decisions are kept as lists: on a CPU every operation on a tensor takes microseconds, of one number as well.
        going = [[most > 0] for most in room]
        active = torch.tensor(going, device=roots.device)
        frontier = Frontier(torch.zeros_like(roots)[:, None], sure, None, None, active)
        tokens, laws, probs = [roots], [], [sure]
        paths: list[list[int]] = [[] for _ in rows]
        while any(one for (one,) in going):
            grow = (frontier.active & length.grow(frontier, batch) & (shape.children(frontier) > 0))[:, 0]
            growing = grow.tolist()
            if not any(growing):
                break
            scores = self._read_committed(batch) if len(tokens) == 1 else self._read(tokens[-1], len(tokens) - 1)
            q = distribution(scores.logits, rows, lambda b, _: paths[b], self._temperature)[:, 0]  # [B, V]
            token = batch.draft_rng.pick(q, grow)
            tokens.append(token)
            laws.append(q if all(growing) else q * grow[:, None])
            going = []
            for b, (drawn, drafting) in enumerate(zip(token.tolist(), growing, strict=True)):
                if drafting:
                    paths[b].append(drawn)
                # Nothing may follow an end-of-sequence token, so drafting stops there.
                ended = drawn in rows[b].request.stop_token_ids
                going.append([drafting and not ended and len(paths[b]) < room[b]])
            active = torch.tensor(going, device=roots.device)
            own = scores.logits[:, -1]
            probs.append(own.softmax(1).gather(1, token[:, None]))
            hidden = None if scores.hidden is None else scores.hidden[:, -1:]
            frontier = Frontier(frontier.depth + 1, probs[-1], own[:, None], hidden, active)
        drafted = torch.tensor([len(path) for path in paths], device=roots.device)
        return self._chain(tokens, laws, probs, drafted)

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

    def _chain(self, tokens: list[Tensor], laws: list[Tensor], probs: list[Tensor], drafted: Tensor) -> Draft:
        """Stack what was drawn per depth, each by a forward, into a chain per row."""
        if not laws:
            return Draft.root_only(tokens[0], self.drawn)
        stacked = torch.stack(tokens, 1)
        steps = torch.arange(stacked.shape[1], device=stacked.device)
        used = steps <= drafted[:, None]
        q = torch.stack([*laws, torch.zeros_like(laws[0])], 1)
        parents = (steps - 1).clamp_min(0) * used
        return Draft(stacked * used, parents, drafted + 1, q, self.drawn, torch.cat(probs, 1), drafted)

    def observe(self, batch: Batch, draft: Draft, verdict: Verdict, scores: Scores) -> None:
        # The last drafted token was never read, so a full acceptance leaves two tokens to catch up with.
        if self._cache.pending:
            kept = torch.minimum(verdict.counts, (draft.sizes - 2).clamp_min(0))
            self._cache.commit(torch.arange(self._cache.pending).expand(len(kept), -1), kept)
