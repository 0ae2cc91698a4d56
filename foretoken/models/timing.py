"""Time the forwards of a loaded pair, as a first guess of what steps cost."""

from __future__ import annotations

from statistics import median
from time import perf_counter

import torch

from foretoken.costs import MeasuredCosts
from foretoken.models.base import KVCache, LanguageModel
from foretoken.models.prefill import prefill

CONTEXT = 64  # tokens in the cache
SIZES = (1, 2, 3, 4, 5, 6, 8, 9, 12, 16)
BUDGET_S = 0.5
ROUNDS = 9  # more of them change little


def calibrate(target: LanguageModel, draft: LanguageModel | None) -> MeasuredCosts:
    """Costs from forwards of some sizes in turn, until half a second is over, but at least once after a warm-up."""
    deadline = perf_counter() + BUDGET_S
    runs = [(target, size) for size in SIZES] + ([(draft, 1)] if draft else [])
    caches = {id(model): prefill(model, [[0] * CONTEXT]) for model, _ in runs}
    seconds: dict[tuple[int, int], list[float]] = {}
    for turn in range(ROUNDS + 1):
        for model, size in runs:
            took = forward_s(model, size, caches[id(model)])
            if turn:
                seconds.setdefault((id(model), size), []).append(took)
        if turn and perf_counter() > deadline:
            break
    verify, most = {}, 0.0
    for size in SIZES:  # more tokens never cost less; where they seem to, that is noise
        verify[size] = most = max(most, median(seconds[id(target), size]))
    # Without a draft model, looking up is next to nothing.
    return MeasuredCosts({1: median(seconds[id(draft), 1]) if draft else verify[1] / 100}, verify)


@torch.inference_mode()
def forward_s(model: LanguageModel, size: int, cache: KVCache) -> float:
    """Seconds of reading that many tokens, which are forgotten again."""
    positions = torch.arange(CONTEXT, CONTEXT + size)[None]
    mask = torch.ones(1, size, size, dtype=torch.bool).tril()
    begin = perf_counter()
    scores = model.forward(torch.zeros(1, size, dtype=torch.int64), positions, mask, cache)
    scores.logits[0, 0, 0].item()  # waits for the device
    took = perf_counter() - begin
    cache.commit(torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    return took
