"""Numbers that drafter and target share, so that what a seed says depends on nothing that was drafted."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

AT_ONCE = 1 << 16  # numbers that are made together where places have fewer, so that many are handed out uncopied


class Race:
    """An exponential number for each token at each place of a text; who has the least over its probability comes next.

    Every token wins as often as its probability says, whatever the law, and laws that are alike have the same winner
    with a probability of at least (1 - d) / (1 + d), where d is their distance in total variation. So a drafter that
    lets the numbers decide foretells the target, whose own winner is what follows in any case: the text is that of
    plain decoding. Rules that compare laws keep a little more (1 - d), but the text then depends on what was drafted.

    Reference: Daliri, Musco and Suresh 2024, drafter-invariant speculative decoding by Gumbel sampling,
    https://arxiv.org/abs/2408.07978. Cost: V numbers per place.

    Args:
        words: the seed, as whole numbers of 32 bits.
    """

    def __init__(self, words: list[int]) -> None:
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))
        self._first = 0  # place of the first numbers that are kept
        self._numbers: Any = None  # [places, V] float64 array: of fewer bits, some are 0

    def numbers(self, vocab_size: int, count: int, done: int, ahead: int = 0) -> Tensor:
        """[count, V] float64, on the CPU. The numbers of a few places in a row; nobody may write to them.

        Args:
            vocab_size: V.
            count: places.
            done: places that nobody will ask about any more.
            ahead: how far behind those the first place is.
        """
        kept = self._numbers if self._numbers is not None else np.empty((0, vocab_size))
        kept, self._first = kept[done - self._first :], done
        if (missing := ahead + count - len(kept)) > 0:
            more = self._generator.standard_exponential((max(missing, AT_ONCE // vocab_size), vocab_size))
            kept = np.concatenate([kept, more])
        self._numbers = kept
        return torch.from_numpy(kept[ahead : ahead + count])


def winners(laws: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Who wins a few races.

    Args:
        laws: [..., V] float.
        numbers: [..., V] float64.

    Returns:
        [...] int64. Tokens.
        [...] float64. Above 0 and finite where there was something to choose from.
    """
    most, tokens = (laws / numbers.to(laws.device, non_blocking=True)).max(-1)
    return tokens, most
