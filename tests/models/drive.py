"""How tests make models read, and what the library makes of the same tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from foretoken.models.cache import TensorCache
from foretoken.models.hf import HFModel

CLOSE = 1e-4


def random_tokens(seed: int, *shape: int) -> Tensor:
    """Ids above the special ones, of the small vocabulary."""
    return torch.randint(3, 64, shape, generator=torch.Generator().manual_seed(seed))


def vanilla(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """[T, V] logits of one plain sequence ([T] int64): no cache, no mask."""
    with torch.no_grad():
        return model(input_ids=tokens[None], use_cache=False).logits[0]


def read_chain(model: HFModel, cache: TensorCache, tokens: Tensor, last: int = 0) -> Tensor:
    """[B, N, V] logits of tokens ([B, N] int64) that continue each row and what is pending there."""
    rows, new = tokens.shape
    order = torch.arange(cache.pending + new)
    mask = (order <= order[cache.pending :, None]).expand(rows, -1, -1)
    positions = cache.lengths[:, None] + order[cache.pending :]
    return model.forward(tokens, positions, mask, cache, last).logits


def keep(cache: TensorCache, *counts: int) -> None:
    """Commit the first few pending entries of each row."""
    cache.commit(torch.arange(max(counts)).expand(len(counts), -1), torch.tensor(counts))


def error(found: Tensor, expected: Tensor) -> float:
    """The largest difference, wherever the two are."""
    return float((found.cpu() - expected.cpu()).abs().max())
