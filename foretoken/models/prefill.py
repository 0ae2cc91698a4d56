"""Read prompts into a fresh cache."""

from __future__ import annotations

import torch
from torch import Tensor

from foretoken.models.base import KVCache, LanguageModel

CHUNK = 512


def prefill(model: LanguageModel, prompts: list[list[int]], states: list[list[Tensor]] | None = None) -> KVCache:
    """Cache of prompts, read in chunks so that attention masks stay small. An empty prompt gives an empty row.

    Args:
        model: what reads.
        prompts: token ids.
        states: one list per prompt, to which the last hidden states of its tokens are added, a [n, H] float tensor per
            chunk; None saves scoring all but the last token.
    """
    cache = model.new_cache(len(prompts))
    longest = max(map(len, prompts), default=0)
    for start in range(0, longest, CHUNK):
        pieces = [prompt[start : start + CHUNK] for prompt in prompts]
        width = max(len(piece) for piece in pieces)
        tokens = torch.tensor([piece + [0] * (width - len(piece)) for piece in pieces])
        # Padding stands behind the text, so no token of the text sees it, and it is never committed.
        scores = model.forward(tokens, cache, last=1 if states is None else 0)
        if states is not None and scores.hidden is not None:
            for held, hidden, piece in zip(states, scores.hidden, pieces, strict=True):
                held += [hidden[: len(piece)]] if piece else []
        cache.commit([range(len(piece)) for piece in pieces])
    return cache
