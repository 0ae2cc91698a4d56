"""A language model that draws tokens by itself, as far as a `TableModel` can."""

from __future__ import annotations

import torch
from torch import Tensor

from foretoken.models.base import Look
from foretoken.models.cache import TensorCache
from foretoken.types import Continuation, Scores
from tests.contract.outcomes import GRID
from tests.contract.table import DIGESTS, Table, TableModel

AHEAD = 3


class DrawingTable(TableModel):
    """A `TableModel` that goes on by itself for any number of rows.

    Attributes:
        num_chains: how often it did.
    """

    num_chains = 0

    def ahead(self, rows: int) -> int:
        return AHEAD

    def chain(  # type: ignore[override]
        self,
        tokens: Tensor,
        at: Tensor,
        cache: TensorCache,
        count: int,
        temperature: float = 0.0,
        uniforms: Tensor | None = None,
        look: Look | None = None,
    ) -> Continuation:
        assert 1 <= count <= AHEAD
        self.num_chains += 1
        missing = at - cache.lengths - cache.pending
        assert bool(((missing == 0) | (missing == (cache.pending == 0))).all()), "it begins where the cache ends"
        if bool(missing.any()):
            self._step(tokens[:, 0], at - 1, cache)
            cache.commit(list(map(range, missing.tolist())))
        newest, drawn, laws, scored = tokens[:, 1], [], [], []
        for place in range(count):
            scored.append(self._step(newest, at + place, cache))
            logits = scored[-1].logits[:, 0]
            if temperature:
                assert uniforms is not None
                laws.append((logits / temperature).softmax(-1))
                newest = (laws[-1].cumsum(-1) <= uniforms[:, place, None]).sum(-1)
            else:
                newest = logits.argmax(-1)
            drawn.append(newest)
        logits, hidden = (torch.cat([getattr(one, name) for one in scored], 1) for name in ("logits", "hidden"))
        chosen = torch.stack(drawn, 1)
        prob = logits.softmax(-1).gather(2, chosen[..., None])[..., 0]
        return Continuation(chosen, prob, logits, hidden, torch.stack(laws, 1) if laws else None)

    def _step(self, tokens: Tensor, positions: Tensor, cache: TensorCache) -> Scores:
        mask = torch.ones(len(tokens), 1, cache.pending + 1, dtype=torch.bool)
        return self.forward(tokens[:, None], positions[:, None].clamp_max(self.max_length - 1), mask, cache)


def coarse_table(seed: int, vocab_size: int) -> Table:
    """A table whose probabilities are multiples of 1/GRID, zero among them, which so many equal numbers hit exactly."""
    lines = (vocab_size + 1) * vocab_size * DIGESTS
    hits = torch.randint(vocab_size, (lines, GRID), generator=torch.Generator().manual_seed(seed))
    counts = torch.nn.functional.one_hot(hits, vocab_size).sum(1)
    return Table((counts / GRID).double().log())
