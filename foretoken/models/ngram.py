"""An n-gram model in sorted tables: counted once, looked up for many contexts at a time."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class NGram(nn.Module):
    """Interpolated n-gram probabilities with Witten-Bell weights, in float64.

    p(y | c) = (count(c, y) + kinds(c) p(y | c')) / (count(c) + kinds(c)), with c' the context without its oldest token,
    kinds(c) the number of different tokens seen after c, and p(y) smoothed by one. A sequence of tokens is one whole
    number in base V, so V^n must stay below 2^63.

    Args:
        vocab_size: V.
        sizes: for every order from 2 to n, how many sequences and how many contexts were counted.

    Attributes:
        order: n.
        vocab_size: V.

    Reference: Witten and Bell 1991, The zero-frequency problem.
    """

    unigrams: Tensor

    def __init__(self, vocab_size: int, sizes: Iterable[tuple[int, int]] = ()) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.register_buffer("unigrams", torch.zeros(vocab_size, dtype=torch.int64))
        self.order = 1
        for self.order, (grams, contexts) in enumerate(sizes, 2):
            for name, size, columns in (("grams", grams, 2), ("contexts", contexts, 3)):
                self.register_buffer(f"{name}_{self.order}", torch.zeros(columns, size, dtype=torch.int64))

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """As they are given on construction."""
        orders = range(2, self.order + 1)
        return [tuple(self.get_buffer(f"{n}_{o}").shape[1] for n in ("grams", "contexts")) for o in orders]  # type: ignore[misc]

    @classmethod
    def count(cls, texts: Iterable[Tensor], vocab_size: int, order: int, least: int = 2) -> NGram:
        """Count sequences.

        Args:
            texts: [T] int64 each. Sequences never cross from one text into the next.
            vocab_size: V.
            order: n.
            least: sequences of three tokens or more that were seen less often are forgotten.
        """
        texts = [text.long() for text in texts]
        tables, sizes = {"unigrams": torch.bincount(torch.cat(texts), minlength=vocab_size)}, []
        for o in range(2, order + 1):
            power = vocab_size ** torch.arange(o - 1, -1, -1)
            keys = torch.cat(
                [(text.unfold(0, o, 1) * power).sum(-1) for text in texts if len(text) >= o] or [power[:0]]
            )
            grams, counts = torch.unique(keys, return_counts=True)
            kept = counts >= (least if o > 2 else 1)
            grams, counts = grams[kept], counts[kept]
            contexts, place, kinds = torch.unique(grams // vocab_size, return_inverse=True, return_counts=True)
            total = torch.zeros_like(contexts).index_add_(0, place, counts)
            tables |= {
                f"grams_{o}": torch.stack([grams, counts]),
                f"contexts_{o}": torch.stack([contexts, total, kinds]),
            }
            sizes.append((len(grams), len(contexts)))
        made = cls(vocab_size, sizes)
        made.load_state_dict(tables)
        return made

    def forward(self, context: list[Tensor], token: Tensor) -> Tensor:
        """Log-probability of tokens.

        Args:
            context: up to n - 1 tensors of int64 that broadcast with each other, the newest token last.
            token: [...] int64, of the shape that all broadcast to.

        Returns:
            [...] float64.
        """
        prob = (self.unigrams[token] + 1.0).double() / (self.unigrams.sum() + self.vocab_size)
        key, before, base = token, torch.zeros_like(token), self.vocab_size
        for o, newest in enumerate(reversed(context[len(context) - self.order + 1 :] if self.order > 1 else []), 2):
            key, before = newest * base + key, newest * (base // self.vocab_size) + before
            base *= self.vocab_size
            (seen,) = _look_up(self.get_buffer(f"grams_{o}"), key)
            total, kinds = _look_up(self.get_buffer(f"contexts_{o}"), before)
            prob = torch.where(total > 0, (seen + kinds * prob) / (total + kinds).clamp_min(1), prob)
        return prob.log()


def _look_up(table: Tensor, key: Tensor) -> Tensor:
    """Values of keys in a table whose first line is sorted keys, 0 for one that is not there.

    Args:
        table: [1+C, S] int64. Keys, and C lines of values.
        key: [...] int64.

    Returns:
        [C, ...] int64.
    """
    if not table.shape[1]:
        return table.new_zeros(len(table) - 1, *key.shape)
    place = torch.searchsorted(table[0], key.contiguous()).clamp_max(table.shape[1] - 1)
    return table[1:, place] * (table[0, place] == key)
