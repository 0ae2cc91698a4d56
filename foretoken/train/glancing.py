"""What a semi-autoregressive head says all along a text at once, and how its draft is put right.

Reference: Gao et al. 2024, Falcon, https://arxiv.org/abs/2412.12639.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from foretoken.models.falcon import FalconHead


class Said(NamedTuple):
    """What all blocks of all texts say.

    Attributes:
        states: [R, Q, H] float. Block after block, Q = C*K in all.
        at: [R, Q] int64. Places they are of; those of the last blocks may be beyond the text.
    """

    states: Tensor
    at: Tensor


class Blocks:
    """A block of pairs at each of many places of texts, which drafts as if the text ended with it.

    Args:
        net: the head.
        hidden: [R, N, H] float. The target's states.
        ids: [R, N] int64. The texts.
        begin: [R] int64. First pair of the first block; the others begin one pair later each.
        count: C, blocks per text.
    """

    def __init__(self, net: FalconHead, hidden: Tensor, ids: Tensor, begin: Tensor, count: int) -> None:
        self._net, self._size = net, net.shape.block
        rows, pairs = len(ids), ids.shape[1] - 1
        self._heard = net.read(hidden[:, :-1], ids[:, 1:])
        self._keys, self._values = net.keys(self._heard, torch.arange(pairs).expand(rows, -1))
        number = torch.arange(count * self._size)  # [Q]
        self._block = number // self._size
        first = begin[:, None] + self._block  # of each pair's own block
        self._at = first + number % self._size  # [R, Q]
        self._seen = torch.arange(pairs) < (first + self._size)[..., None]  # [R, Q, N-1]

    def first(self) -> Said:
        """What they say of the states after them from the target's states alone, all up to their own ends."""
        heard = at_places(self._heard, self._at)
        seen = self._seen[:, None]
        said = self._net.speak(heard, self._at, self._keys, self._values, seen)
        return Said(said, self._at + self._size)

    def second(self, states: Tensor, tokens: Tensor) -> Said:
        """What they say when each goes on by one block that the target has not read.

        Args:
            states: [R, Q, H] float. Of these pairs, whose places are those of which `first` says something.
            tokens: [R, Q] int64. Chosen there.
        """
        heard, at = self._net.read(states, tokens), self._at + self._size
        keys, values = self._net.keys(heard, at)
        own = (self._block == self._block[:, None]).expand(len(tokens), -1, -1)
        seen = torch.cat([self._seen, own], 2)[:, None]
        keys, values = torch.cat([self._keys, keys], 2), torch.cat([self._values, values], 2)
        return Said(self._net.speak(heard, at, keys, values, seen), at + self._size)


def along_answers(scored: Tensor, block: int) -> tuple[Tensor, int]:
    """Blocks of which each place of the longest answer has one that speaks of it first.

    Args:
        scored: [R, N] bool. Places whose next token belongs to the answer.
        block: K, tokens per block.

    Returns:
        [R] int64. First pair of the first block.
        C, how many blocks there are.
    """
    return (scored.long().argmax(1) - block).clamp_min(0), int(scored.sum(1).max())


def at_places(held: Tensor, at: Tensor) -> Tensor:
    """What is held of places ([R, N, ...]) at some of them ([R, Q] int64), and of the last one beyond ([R, Q, ...])."""
    return held[torch.arange(len(at))[:, None], at.clamp_max(held.shape[1] - 1)]


def glanced(
    said: Said, tokens: Tensor, hidden: Tensor, ids: Tensor, scored: Tensor, share: float
) -> tuple[Tensor, Tensor]:
    """A draft of which a share of what is wrong was put right: the worse it is, the more.

    Args:
        said: states of the draft.
        tokens: [R, Q] int64. Chosen there.
        hidden: [R, N, H] float. The target's states.
        ids: [R, N] int64. The texts.
        scored: [R, N] bool. Places whose next token counts.
        share: of the wrong tokens of each text, chosen at random; with a token goes the state behind it.

    Returns:
        [R, Q, H] float. States.
        [R, Q] int64. Tokens.
    """
    actual = at_places(ids[:, 1:], said.at)
    wrong = (tokens != actual) & there(scored, said.at)
    order = torch.rand(wrong.shape).masked_fill(~wrong, 2.0).argsort(1).argsort(1)
    right = wrong & (order < (share * wrong.sum(1, keepdim=True)).round())
    states = torch.where(right[..., None], at_places(hidden, said.at), said.states)
    return states, torch.where(right, actual, tokens)


def there(scored: Tensor, at: Tensor) -> Tensor:
    """[R, Q] bool. Whether places are inside the texts and count ([R, N] bool)."""
    return at_places(scored, at) & (at < scored.shape[1])
