"""Time the forwards of a loaded pair, as a first guess of what steps cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median_low
from time import perf_counter

import torch
from torch import Tensor

from foretoken.costs import MeasuredCosts
from foretoken.models.base import KVCache, LanguageModel
from foretoken.models.prefill import prefill

CONTEXT = 64  # tokens in the cache
SIZES = (1, 2, 4, 5, 6, 7, 8, 9, 16)
MANY = 4  # tokens drafted in a row
BUDGET_S = 0.5
ROUNDS = 9  # more of them change little
IN_A_ROW = 12  # forwards of one width until caches hold what it reads, and some more
LAST = 4  # of them, which count
SETTLES_S = 0.02  # what takes longer reads more weights than caches hold


def calibrate(target: LanguageModel, draft: LanguageModel | None) -> MeasuredCosts:
    """Costs from forwards of some widths in turn, until half a second is over, but at least twice after a warm-up.

    Of four timings the second shortest counts, since machines stand still at times.
    """
    deadline = perf_counter() + BUDGET_S
    widths = sorted({target.width(size) for size in SIZES})
    widths = widths if len(widths) > 1 else 2 * widths  # short and long drafts are timed in turn
    caches = [prefill(model, [[0] * CONTEXT]) for model in (target, draft) if model]
    seconds: dict[tuple[str, int], list[float]] = defaultdict(list)
    for turn in range(ROUNDS + 1):
        for what, size, took in _round(target, draft, caches, widths):
            if turn:
                seconds[what, size].append(took)
        if turn > 1 and perf_counter() > deadline:
            break
    # Several tokens may take less time than one, for which processors have another program.
    verify = {width: _short(seconds["again", width]) for width in widths}
    switches = [_short(seconds["first", width]) - verify[width] for width in widths]
    # Without a draft model, looking up is next to nothing.
    little = {count: count * verify[widths[0]] / 100 for count in (1, MANY)}
    drafting = {count: median_low(seconds["draft", count]) if draft else least for count, least in little.items()}
    return MeasuredCosts(drafting, verify, max(median_low(switches), 0.0), target.width)


def _round(
    target: LanguageModel, draft: LanguageModel | None, caches: list[KVCache], widths: list[int]
) -> Iterator[tuple[str, int, float]]:
    """What was timed, its size, and its seconds.

    The target reads each width several times, since another width than the last one costs more where it has weights of
    its own: a small model comes to rest in the processor's caches. Then the draft reads, as it does in a step: after
    the target, whose weights have filled the caches.
    """
    for index, size in enumerate(widths):
        yield "first", size, (first_s := forwards_s(target, size, caches[0]))
        more = max(min(int(SETTLES_S / first_s), IN_A_ROW), 1)
        for again_s in [forwards_s(target, size, caches[0]) for _ in range(more)][-LAST:]:
            yield "again", size, again_s
        if draft:
            count = (1, MANY)[index % 2]
            drafted_s = chain_s if draft.ahead(1) >= count else partial(forwards_s, size=1)
            yield "draft", count, drafted_s(draft, cache=caches[1], count=count)


def _short(seconds: list[float]) -> float:
    return sorted(seconds)[(len(seconds) - 1) // 4]


def forwards_s(model: LanguageModel, size: int, cache: KVCache, count: int = 1) -> float:
    """Seconds of so many forwards that read that many tokens each, which are forgotten again."""
    return _took(cache, count, lambda: model.forward(torch.zeros(1, size, dtype=torch.int64), cache).logits)


def chain_s(model: LanguageModel, cache: KVCache, count: int) -> float:
    """Seconds in which a model draws so many tokens by itself, which are forgotten again."""
    begin = torch.zeros(1, 2, dtype=torch.int64), torch.tensor([CONTEXT])
    return _took(cache, 1, lambda: model.chain(*begin, cache, count).tokens)


@torch.inference_mode()
def _took(cache: KVCache, times: int, read: Callable[[], Tensor]) -> float:
    begin = perf_counter()
    for _ in range(times):
        read().view(-1)[-1].item()  # waits for the device
    took = perf_counter() - begin
    cache.commit([[]])
    return took
