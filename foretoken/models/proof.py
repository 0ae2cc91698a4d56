"""Proof that a model follows our mask, positions and cache: hidden and rolled back tokens leave no trace."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from foretoken.models.base import KVCache, LanguageModel, Places, Stop
from foretoken.types import Continuation, Scores

# How far logits may be from what they should be, in parts of their spread. Rounding stays well below; a mask or a
# position that is not followed gives 0.25 and more in models that were trained.
TOLERANCE = {torch.float64: 0.01, torch.float32: 0.01, torch.float16: 0.1, torch.bfloat16: 0.1}
# How far a layer's outputs may be from what they were, in parts of their size: a rounding or two.
CLOSE = {torch.float32: 1e-5, torch.float16: 1.9e-3, torch.bfloat16: 1e-2}
FAR = 24  # tokens read at the end of the context, to prove that positions are followed there too


def same(found: Tensor, expected: Tensor) -> bool:
    """Whether a layer's outputs ([...] float) are those expected ([...] float32), but for rounding to their type."""
    return bool((found.float() - expected).norm() <= CLOSE[found.dtype] * expected.norm())


def probe(readable: int, device: torch.device | None = None) -> Tensor:
    """[1, 8] int64. Tokens to read, all different in real models.

    Args:
        readable: tokens the model knows.
        device: where they are wanted.
    """
    return torch.arange(1, 16, 2, device=device)[None] * readable // 16


def read_with_detours(read: Callable[[Tensor, KVCache, Places], Scores], cache: KVCache, tokens: Tensor) -> Tensor:
    """Read tokens with wrong ones in between, hidden by the mask and then rolled back.

    Args:
        read: as `LanguageModel.forward`.
        cache: an empty cache of one row.
        tokens: [1, 8] int64.

    Returns:
        [1, 6, V] float. Logits of all but the first two tokens.
    """
    wrong = tokens.flip(1)
    # Two right tokens, two wrong ones after them, and the next two right ones in their place.
    mask = torch.ones(1, 6, 6, dtype=torch.bool).tril()
    mask[:, 4:, 2:4] = False
    places = Places(torch.tensor([[0, 1, 2, 3, 2, 3]]), mask)
    first = read(torch.cat([tokens[:, :2], wrong[:, :2], tokens[:, 2:4]], 1), cache, places)
    cache.commit([[0, 1, 4, 5]])
    # One more wrong token, and the rest.
    mask = torch.ones(1, 5, 5, dtype=torch.bool).tril()
    mask[:, 1:, 0] = False
    places = Places(torch.tensor([[4, 4, 5, 6, 7]]), mask)
    second = read(torch.cat([wrong[:, 2:3], tokens[:, 4:]], 1), cache, places)
    return torch.cat([first.logits[:, 4:], second.logits[:, 1:]], 1)


def draws_amiss(model: LanguageModel, reference: LanguageModel, tokens: Tensor, count: int) -> float:
    """How far the scores of a model that draws tokens by itself are from what another says; the mean over tokens.

    It draws after a token whose entry is missing, then, with one drawn token kept, after one that was read. Both times
    it reads the last drawn token, for which all entries must be there.

    Args:
        model: draws by itself.
        reference: what it was made of, or itself.
        tokens: [1, 8] int64.
        count: how many to draw each time.

    Returns:
        As `distance`; infinite if some token is not the likeliest.
    """
    cache, known = model.new_cache(1), tokens.shape[1] - 2
    model.forward(tokens[:, :known], cache)
    cache.commit([range(known)])
    found, expected = [], []
    for read in (known + 2, known + 3):
        drawn = model.chain(tokens[:, read - 2 : read], torch.tensor([read - 1]), cache, count)
        if drawn.logits is None or not torch.equal(drawn.tokens, drawn.logits.argmax(-1)):
            return math.inf
        found.append(drawn.logits)
        tokens = torch.cat([tokens[:, :read], drawn.tokens], 1)
        expected.append(reference.forward(tokens, reference.new_cache(1), last=count + 1).logits)
        found.append(model.forward(tokens[:, -1:], cache).logits)
        cache.commit([[0]])
    return distance(torch.cat(found, 1), torch.cat(expected, 1))


def stops_as_told(model: LanguageModel, tokens: Tensor) -> bool:
    """Whether a model that draws by itself stops where a rule says so, and draws the same tokens until then.

    Args:
        model: draws by itself.
        tokens: [1, 8] int64.
    """
    known, most = tokens.shape[1] - 2, model.ahead(1)
    drawn = []
    for count in (most, 1, most // 2, most):
        cache = model.new_cache(1)
        model.forward(tokens[:, :known], cache)
        cache.commit([range(known)])
        stop = Stop([most], torch.tensor([[float(count)]]), _fewer)
        found = model.chain(tokens[:, -2:], torch.tensor([known + 1]), cache, most, watch=stop)
        if found.wanted is None or found.wanted.tolist() != [count]:
            return False
        drawn.append(found.tokens[0, :count].tolist())
    return all(one == drawn[0][: len(one)] for one in drawn)


def _fewer(drawn: Continuation, given: Tensor) -> Tensor:
    """Go on below so many tokens."""
    return drawn.tokens.shape[1] < given[:, 0]


def distance(found: Tensor, expected: Tensor) -> float:
    """How far logits are from what they should be, in parts of their spread; the mean over tokens.

    Args:
        found: [1, N, V] float.
        expected: [1, N, W] float. Logits that only one of the two has do not count, nor tokens that are impossible.
    """
    width = min(found.shape[-1], expected.shape[-1])
    possible = ~(expected[0, :, :width] == -torch.inf).all(0)
    found, expected = found[..., :width][..., possible], expected[..., :width][..., possible]
    spread = (expected - expected.mean(-1, keepdim=True)).norm(dim=-1)
    # The mean, since half precision may send a token or two of a mixture of experts elsewhere.
    return float(((found - expected).norm(dim=-1) / spread).mean())


@torch.no_grad()
def expect(model: PreTrainedModel, max_length: int) -> dict[str, Tensor]:
    """What a model makes of a few tokens by itself, at the beginning and at the end of its context."""
    readable = int(model.get_input_embeddings().weight.shape[0])
    far = torch.randint(readable, (1, min(FAR, max_length)), generator=torch.Generator().manual_seed(0))
    places = torch.arange(max_length - far.shape[1], max_length)[None]
    near = model(input_ids=probe(readable), use_cache=False).logits[:, 2:]
    there = model(input_ids=far, position_ids=places, use_cache=False).logits[:, -8:]
    return {"near": near.float().contiguous(), "far": far, "there": there.float().contiguous()}


def says_the_same(model: Any, proof: dict[str, Tensor]) -> bool:
    """Whether a conversion follows mask, positions and cache, and says what `expect` heard from the original.

    Args:
        model: a `LanguageModel` with `readable` and `dtype`.
        proof: what `expect` returned.
    """
    found = read_with_detours(model.forward, model.new_cache(1), probe(model.readable))
    far = proof["far"]
    size = far.shape[1]
    places = Places(torch.arange(model.max_length - size, model.max_length)[None], torch.ones(1, size, size).tril() > 0)
    there = model.forward(far, model.new_cache(1), places, last=proof["there"].shape[1]).logits
    worst = max(distance(found, proof["near"]), distance(there, proof["there"]))
    return worst < TOLERANCE[model.dtype]
