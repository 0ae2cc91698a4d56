"""Language models small enough to know completely: a table from what a token sees to the logits of what follows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from foretoken.models.base import Places, ScoresOnly, following
from foretoken.models.cache import TensorCache
from foretoken.types import Scores

DIGESTS = 5


class Table:
    """Logits that depend on every token of the context.

    The last two tokens choose a block of the table, a digest of the whole context a line in it. Changing, dropping or
    swapping any token changes the digest, so a table model that sees one wrong token answers wrongly.

    Args:
        logits: [(V+1)*V*DIGESTS, V] float64. One line per (token before, V for none; own token; digest).
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits, self.vocab_size = logits, logits.shape[-1]

    def line(self, context: Sequence[int]) -> int:
        """Line of the table for a context of at least one token."""
        digest = sum((at % (DIGESTS - 1) + 1) * token for at, token in enumerate(context)) % DIGESTS
        before = context[-2] if len(context) > 1 else self.vocab_size
        return (before * self.vocab_size + context[-1]) * DIGESTS + digest

    def __call__(self, context: Sequence[int]) -> list[float]:
        """Logits of what follows a context."""
        return self.logits[self.line(context)].tolist()


def random_table(seed: int, vocab_size: int, spread: float = 1.5, dead: float = 0.0) -> Table:
    """Normal logits; with `dead`, about that share of tokens is impossible in every line, but never all of them."""
    dice = torch.Generator().manual_seed(seed)
    lines = (vocab_size + 1) * vocab_size * DIGESTS
    logits = spread * torch.randn(lines, vocab_size, generator=dice, dtype=torch.float64)
    killed = torch.rand(lines, vocab_size, generator=dice) < dead
    killed.scatter_(1, torch.randint(vocab_size, (lines, 1), generator=dice), False)
    return Table(logits.masked_fill(killed, -torch.inf))


def constant_table(probs: Sequence[float]) -> Table:
    """The same distribution after every context."""
    lines = (len(probs) + 1) * len(probs) * DIGESTS
    return Table(torch.tensor(probs, dtype=torch.float64).log().repeat(lines, 1))


def cycle_table(vocab_size: int, stride: int = 1) -> Table:
    """After token t comes token t + stride, round and round, for certain."""
    logits = torch.full(((vocab_size + 1) * vocab_size * DIGESTS, vocab_size), -torch.inf, dtype=torch.float64)
    own = torch.arange(len(logits)) // DIGESTS % vocab_size
    return Table(logits.scatter(1, ((own + stride) % vocab_size)[:, None], 0.0))


def only(table: Table, tokens: Sequence[int]) -> Table:
    """The table with all but these tokens impossible."""
    logits = torch.full_like(table.logits, -torch.inf)
    logits[:, list(tokens)] = table.logits[:, list(tokens)]
    return Table(logits)


def near(table: Table, seed: int, spread: float = 0.5) -> Table:
    """The table with some noise: a good draft of it."""
    return Table(table.logits + random_table(seed, table.vocab_size, spread).logits)


class TableModel(ScoresOnly):
    """A `LanguageModel` in float64 that reads everything it knows back from a real `TensorCache`.

    Its keys are token ids and its values positions. What a token sees (the row's committed entries, and the pending
    ones its mask allows) must be exactly one entry for every position up to its own; otherwise the answer comes from
    a line of nonsense, which no exactness test survives. Padding may see anything.

    Args:
        table: the law.
        max_length: longest sequence it can read.
        vocab_size: logits to return, when they are more or fewer than the table has; as `HFModel` does.
    """

    device = torch.device("cpu")
    hidden_size = 2  # own token and digest

    def __init__(self, table: Table, max_length: int = 48, vocab_size: int | None = None) -> None:
        self.table, self.max_length = table, max_length
        self.vocab_size = vocab_size or table.vocab_size
        nonsense = torch.arange(table.vocab_size, dtype=torch.float64) * 3
        self._lines = torch.cat([table.logits, nonsense[None]])
        self.caches: list[TensorCache] = []
        self.num_forwards = 0

    def width(self, tokens: int) -> int:
        return tokens

    def new_cache(self, rows: int) -> TensorCache:
        self.caches.append(TensorCache(1, rows, capacity=2))
        return self.caches[-1]

    def forward(self, tokens: Tensor, cache: TensorCache, places: Places | None = None, last: int = 0) -> Scores:
        positions, mask = places or following(cache.lengths, cache.pending, tokens.shape[1])
        assert bool((positions >= 0).all()), "a position before the text"
        positions = positions.clamp_max(self.max_length - 1)
        tokens = tokens.clamp_max(self.table.vocab_size - 1)
        self.num_forwards += 1
        cache.begin(positions)
        keys, values = cache.write(0, tokens[:, None, :, None].double(), positions[:, None, :, None].double())
        cache.end()
        line, digest = self._read(keys[:, 0, :, 0].long(), values[:, 0, :, 0].long(), positions, mask, cache)
        logits = self._lines[line][:, -last:, : self.vocab_size]
        logits = pad(logits, (0, self.vocab_size - logits.shape[-1]), value=-torch.inf)
        return Scores(logits, torch.stack([tokens, digest], -1).double())

    def _read(
        self, held: Tensor, at: Tensor, positions: Tensor, mask: Tensor, cache: TensorCache
    ) -> tuple[Tensor, Tensor]:
        """Line of the table and digest for every new token, from what the cache holds and the mask allows ([B, N])."""
        place = torch.arange(held.shape[1]) - cache.lengths[:, None]  # [B, T] below 0: committed; else which pending
        allowed = mask.gather(2, place.clamp(0, mask.shape[2] - 1)[:, None].expand(-1, mask.shape[1], -1))
        allowed = (place < 0)[:, None] | (allowed & (place < mask.shape[2])[:, None])  # [B, N, T]
        # As many entries as positions, and their powers of two add up to 111...1: every position exactly once.
        powers = torch.where(allowed, 2 ** at.clamp(0, 50)[:, None], 0).sum(-1)
        whole = (allowed.sum(-1) == positions + 1) & (powers == 2 ** (positions + 1) - 1)
        before = torch.where(allowed & (at[:, None] == positions[..., None] - 1), held[:, None], 0).sum(-1)
        before = torch.where(positions > 0, before, self.table.vocab_size)
        own = torch.where(allowed & (at[:, None] == positions[..., None]), held[:, None], 0).sum(-1)
        weighted = (at % (DIGESTS - 1) + 1) * held
        digest = torch.where(allowed, weighted[:, None], 0).sum(-1) % DIGESTS
        line = (before * self.table.vocab_size + own) * DIGESTS + digest
        return torch.where(whole, line, len(self._lines) - 1), digest
