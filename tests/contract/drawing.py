"""A language model that draws tokens by itself, as far as a `TableModel` can."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from foretoken.models.base import Enough, Places, Stop, Watch
from foretoken.models.cache import TensorCache
from foretoken.types import Continuation, Scores
from tests.contract.outcomes import GRID
from tests.contract.table import DIGESTS, Table, TableModel

AHEAD = 3


class DrawingTable(TableModel):
    """A `TableModel` that goes on by itself for any number of rows.

    Attributes:
        num_chains: how often it did.
        can_stop: whether it ends where a `Stop` says so.
    """

    num_chains = 0
    can_stop = True

    @property
    def stops(self) -> bool:
        return self.can_stop

    def ahead(self, rows: int) -> int:
        return AHEAD

    def chain(  # type: ignore[override]
        self,
        tokens: Tensor,
        at: Tensor,
        cache: TensorCache,
        count: int,
        temperature: float = 0.0,
        numbers: Tensor | None = None,
        watch: Watch | None = None,
    ) -> Continuation:
        assert 1 <= count <= AHEAD
        stop = watch if isinstance(watch, Stop) else None
        enough = watch if isinstance(watch, Enough) else None
        self.num_chains += 1
        missing = at - cache.lengths - cache.pending
        assert bool(((missing == 0) | (missing == (cache.pending == 0))).all()), "it begins where the cache ends"
        if bool(missing.any()):
            self._step(tokens[:, 0], at - 1, cache)
            cache.commit(list(map(range, missing.tolist())))
        newest, drawn, laws, scored = tokens[:, 1], [], [], []
        room = torch.tensor(stop.room if stop else [count] * len(at))
        going, wanted = room > 0, torch.zeros_like(at)
        for place in range(count):
            scored.append(self._step(newest, at + place, cache))
            logits = scored[-1].logits[:, 0]
            if temperature:
                assert numbers is not None
                law = (logits / temperature).softmax(-1)
                if numbers.dim() == 3:
                    newest = (law / numbers[:, place]).argmax(-1)
                else:
                    laws.append(law)
                    newest = (law.cumsum(-1) <= numbers[:, place, None]).sum(-1)
            else:
                newest = logits.argmax(-1)
            drawn.append(newest)
            so_far = self._said(drawn, scored, laws)
            wanted += going
            if enough and enough.met(int(newest[0]), so_far.prob[0].tolist()):
                return replace(so_far, wanted=wanted)
            if stop:
                going &= stop.wants(so_far, stop.given) & (wanted < room)
        if stop is None:
            return so_far
        # What nobody wanted was never drawn, and means nothing.
        unwanted = torch.arange(count) >= wanted[:, None]
        law = None if so_far.q is None else so_far.q.masked_fill(unwanted[..., None], torch.nan)
        chosen, prob = so_far.tokens.masked_fill(unwanted, 1), so_far.prob.masked_fill(unwanted, torch.nan)
        return Continuation(chosen, prob, None, None, law, wanted=wanted)

    @staticmethod
    def _said(drawn: list[Tensor], scored: list[Scores], laws: list[Tensor]) -> Continuation:
        logits, hidden = (torch.cat([getattr(one, name) for one in scored], 1) for name in ("logits", "hidden"))
        chosen = torch.stack(drawn, 1)
        prob = logits.softmax(-1).gather(2, chosen[..., None])[..., 0]
        return Continuation(chosen, prob, logits, hidden, torch.stack(laws, 1) if laws else None)

    def _step(self, tokens: Tensor, positions: Tensor, cache: TensorCache) -> Scores:
        mask = torch.ones(len(tokens), 1, cache.pending + 1, dtype=torch.bool)
        return self.forward(tokens[:, None], cache, Places(positions[:, None], mask))


def coarse_table(seed: int, vocab_size: int) -> Table:
    """A table whose probabilities are multiples of 1/GRID, zero among them, which so many equal numbers hit exactly."""
    lines = (vocab_size + 1) * vocab_size * DIGESTS
    hits = torch.randint(vocab_size, (lines, GRID), generator=torch.Generator().manual_seed(seed))
    counts = torch.nn.functional.one_hot(hits, vocab_size).sum(1)
    return Table((counts / GRID).double().log())
