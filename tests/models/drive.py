"""How tests make models read, and what the library makes of the same tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from foretoken.models.base import LanguageModel, Places
from foretoken.models.cache import TensorCache
from foretoken.models.hf import HFModel
from foretoken.race import winners
from foretoken.rng import draw
from foretoken.sampling import warp
from foretoken.types import Continuation

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
    return model.forward(tokens, cache, last=last).logits


def keep(cache: TensorCache, *counts: int) -> None:
    """Commit the first few pending entries of each row."""
    cache.commit(list(map(range, counts)))


def error(found: Tensor, expected: Tensor) -> float:
    """The largest difference, wherever the two are."""
    return float((found.cpu() - expected.cpu()).abs().max())


def draw_by_forwards(
    model: LanguageModel,
    tokens: Tensor,
    at: Tensor,
    cache: Any,
    count: int,
    temperature: float,
    numbers: Tensor | None,
) -> Continuation:
    """As `LanguageModel.chain`, by forwards of one token and draws on the host."""
    if not cache.pending:
        lacking = cache.lengths < at
        if bool(lacking.any()):
            read_chain(model, cache, tokens[:, :1])
            cache.commit(list(map(range, lacking.long().tolist())))
    token, parts = tokens[:, 1], []
    for k in range(count):
        mask = torch.ones(len(at), 1, cache.pending + 1, dtype=torch.bool)
        scores = model.forward(token[:, None], cache, Places((at + k)[:, None], mask))
        logits = scores.logits[:, -1]
        law = warp(logits, temperature) if temperature else None
        if law is None or numbers is None:
            token = logits.argmax(-1)
        elif numbers.dim() == 3:
            (token, _), law = winners(law, numbers[:, k]), None
        else:
            token = torch.tensor(draw(law, numbers[:, k].tolist()), device=law.device)
        prob = logits.softmax(-1).gather(1, token[:, None])[:, 0]
        parts.append((token, prob, logits, None if scores.hidden is None else scores.hidden[:, -1], law))
    token, prob, logits, hidden, law = zip(*parts, strict=True)
    stacked = (None if one[0] is None else torch.stack(one, 1) for one in (token, prob, logits, hidden, law))
    return Continuation(*stacked)  # type: ignore[arg-type]
