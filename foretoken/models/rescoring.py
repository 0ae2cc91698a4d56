"""Which of the parallel heads' candidates go together: scores of one place after another, given what was chosen.

Heads do not see each other's choice, so the best of each side by side are often no text. Only the candidates of a place
(its most likely tokens) are rescored, and nothing else can be chosen there. All scores are those of a law: each place
has a conditional one, given the tokens before it, so what is drawn from them can be judged exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foretoken.models.block_heads import BlockHeads
from foretoken.models.ngram import NGram

COLDEST = 1e-4  # a temperature below is taken for 0: the best path instead of the sum over all


class Independent:
    """Heads as they are, each evaluated when it is asked for.

    Args:
        net: the heads.
        hidden: [B, H] float. The target's state.
    """

    def __init__(self, net: BlockHeads, hidden: Tensor) -> None:
        self._net, self._hidden = net, hidden

    def score(self, tokens: Sequence[Tensor]) -> Tensor:
        """Scores of the next place.

        Args:
            tokens: the root and what was chosen below it, place by place, [B] int64 each.

        Returns:
            [B, V] float.
        """
        return self._net.head(self._hidden, len(tokens) - 1)


class Local(Independent):
    """Each place rescored by the small recurrent model, which has read the tokens chosen before.

    s(y) + weight x log m(y | text, tokens chosen), both normalised over the candidates of the place.

    Args:
        net: heads and recurrent model.
        hidden: [B, H] float. The target's state.
        top: candidates per place.
        weight: of the recurrent model.
    """

    def __init__(self, net: BlockHeads, hidden: Tensor, top: int, weight: float) -> None:
        super().__init__(net, hidden)
        self._top, self._weight = min(top, net.shape.vocab_size), weight
        self._memory = net.remember(hidden)

    def score(self, tokens: Sequence[Tensor]) -> Tensor:
        logits = super().score(tokens)
        self._memory = self._net.read(self._memory, tokens[-1])
        own, candidates = logits.topk(self._top, -1)
        said = self._net.expect(self._memory).gather(-1, candidates)
        mixed = own.log_softmax(-1) + self._weight * said.log_softmax(-1)
        return torch.full_like(logits, -torch.inf).scatter(-1, candidates, mixed)


class Global(Independent):
    """The whole block rescored by an n-gram model: paths through the lattice of candidates.

    A path weighs the sum over its places of s(y) + weight x log g(y | n-1 tokens before), both normalised over the
    candidates of the place. At temperature t a path is drawn with probability proportional to exp(its weight / t),
    place by place: what the places after a candidate are worth, summed over all ways on from it, is added to its score.
    At temperature 0 that is the best way on, and the path is Viterbi's.

    Args:
        net: the heads.
        hidden: [B, H] float. The target's state.
        top: candidates per place.
        weight: of the n-gram model.
        known: [B, n-1] int64. The newest tokens, the root last.
        temperature: [B] float.
    """

    def __init__(
        self, net: BlockHeads, hidden: Tensor, top: int, weight: float, known: Tensor, temperature: Tensor
    ) -> None:
        super().__init__(net, hidden)
        # All places, however many of them will be asked for: a row's law must not depend on its neighbours' room.
        top, places = min(top, net.shape.vocab_size), net.shape.heads
        found = [net.head(hidden, number).topk(top, -1) for number in range(places)]
        self._candidates = [best.indices for best in found]
        own = [best.values.log_softmax(-1) for best in found]
        self._weights = lattice(own, self._candidates, net.ngram, weight, known)
        for place in range(places - 1, 0, -1):
            ahead = onward(self._weights[place], temperature)  # without the oldest token, which the place before lacks
            self._weights[place - 1] = self._weights[place - 1] + ahead[:, None]

    def score(self, tokens: Sequence[Tensor]) -> Tensor:
        place = len(tokens) - 1
        weights = self._weights[place]
        row = torch.arange(len(weights), device=weights.device)
        context = weights.dim() - 2
        for back in range(context, 0, -1):
            if place < back:  # a token from before the block: there is one
                chosen = torch.zeros_like(row)
            else:
                seen = self._candidates[place - back] == tokens[-back][:, None]
                chosen = seen.int().argmax(-1)
            weights = weights[row, chosen]
        full = weights.new_full((len(weights), self._net.shape.vocab_size), -torch.inf)
        return full.scatter(-1, self._candidates[place], weights)


def lattice(own: list[Tensor], candidates: list[Tensor], ngram: NGram, weight: float, known: Tensor) -> list[Tensor]:
    """Weights of the arcs of a lattice.

    Args:
        own: per place [B, K] float, the heads' log-probabilities of its candidates.
        candidates: per place [B, K] int64.
        ngram: of order n.
        weight: of the n-gram model.
        known: [B, n-1] int64. The newest tokens, the root last.

    Returns:
        Per place [B, ..., K] float, with an axis for each of the n-1 tokens before: of length 1 for a known one.
    """
    tokens = [*known[:, known.shape[1] - ngram.order + 1 :, None].unbind(1), *candidates]
    before, found = ngram.order - 1, []
    for place, mine in enumerate(own):
        axes = tokens[place : place + before + 1]
        spread = [t.reshape(len(t), *[1] * axis, -1, *[1] * (before - axis)) for axis, t in enumerate(axes)]
        shape = [len(mine), *(t.shape[1] for t in axes)]
        said = ngram(spread[:-1], spread[-1].expand(shape)).to(mine).log_softmax(-1)
        found.append(mine.reshape(len(mine), *[1] * before, -1) + weight * said)
    return found


def onward(weights: Tensor, temperature: Tensor) -> Tensor:
    """What a place is worth to the one before: the sum over its candidates, or the best of them at temperature 0.

    Args:
        weights: [B, ..., K] float.
        temperature: [B] float.

    Returns:
        [B, ...] float.
    """
    warmth = temperature.to(weights).clamp_min(COLDEST).reshape(-1, *[1] * (weights.dim() - 2))
    summed = warmth * (weights / warmth[..., None]).logsumexp(-1)
    return torch.where(warmth > COLDEST, summed, weights.amax(-1))
