"""How many tokens one row is read as at least: a processor may have a better program for several than for one."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from statistics import median_low
from time import perf_counter

from foretoken.models import threads
from foretoken.models.openvino import OpenVINOModel
from foretoken.models.openvino_run import core
from foretoken.models.paged import WIDTHS
from foretoken.models.prefill import prefill
from foretoken.models.store import write_whole
from foretoken.models.timing import CONTEXT, forwards_s

FILE = "narrowest.json"
LARGE = 1 << 25  # bytes of weights; of fewer, which caches hold, one token is read fastest
FEW = WIDTHS[:3]  # widths to try
BUDGET_S, LEAST, IN_A_ROW, LAST = 2.0, 5, 6, 4  # time, rounds and forwards that trying takes; the last of those count
MARGIN = 1.03  # how much faster another width must be than one token


def settle(model: OpenVINOModel, folder: Path) -> None:
    """Widen a model to the width that is read fastest on this processor.

    It is found out once and kept beside the conversion: numbers in bfloat16 depend on it, and texts shall repeat from
    one start to the next. So where it cannot be kept, nothing is widened.

    Args:
        model: just loaded.
        folder: the stored conversion.
    """
    if model.weight_bytes < LARGE:
        return
    name = f"{core().get_property('CPU', 'FULL_DEVICE_NAME')}, {threads.available()} threads, {model.dtype}"
    known = recall(folder / FILE)
    if name not in known:
        known[name] = fastest(model)
        try:
            write_whole(folder / FILE, json.dumps(known))
        except OSError:
            return
    model.widen(known[name])


def recall(file: Path) -> dict[str, int]:
    """What is kept, as far as it can be read."""
    with suppress(OSError, ValueError, AttributeError):
        return {name: width for name, width in json.loads(file.read_text()).items() if width in FEW}
    return {}


def fastest(model: OpenVINOModel) -> int:
    """Which width takes the least time, if that is clearly less than what one token takes."""
    cache = prefill(model, [[0] * CONTEXT])
    seconds: dict[int, list[float]] = {width: [] for width in FEW}
    with threads.spared():
        begin = perf_counter()
        while len(seconds[1]) < LEAST * LAST or perf_counter() < begin + BUDGET_S:
            for width, found in seconds.items():
                found += [forwards_s(model, width, cache) for _ in range(IN_A_ROW)][-LAST:]
    typical = {width: median_low(found) for width, found in seconds.items()}
    best = min(FEW, key=typical.__getitem__)
    return best if typical[1] > MARGIN * typical[best] else 1
