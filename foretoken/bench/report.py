"""Samples -> the table and the JSON that are published."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median, quantiles
from typing import Any

from foretoken.bench import profile
from foretoken.bench.methods import FIXED, PLAIN, family
from foretoken.bench.plane import below_fixed_line, fixed_line
from foretoken.bench.run import Sample
from foretoken.metrics import Stats, total

COLUMNS = (
    "target",
    "method",
    "tokens_per_s",
    "speed_up",
    "speed_up_median",
    "speed_up_low",
    "speed_up_high",
    "over_best_fixed",
    "over_best_fixed_median",
    "over_best_fixed_low",
    "over_best_fixed_high",
    "block_efficiency",
    "acceptance_rate",
    "discard_rate",
    "verification_rate",
    "below_fixed_line",
    "prefill_s",
    "decode_s",
    "num_tokens",
    "num_differing",
)


def summarise(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """One row per method, plain decoding first.

    `speed_up` is the method's decode tokens/s over that of plain decoding, both sums over the same prompts; the median
    and the quartiles (`low`, `high`) are of the same ratio prompt by prompt. `over_best_fixed` is the same against the
    fastest of the fixed lengths, None where there is none. `num_differing` counts runs whose tokens are not those of
    plain decoding, which at temperature 0 in float32 must be none; with the rule `coupled` at any temperature.
    """
    names = dict.fromkeys([PLAIN, *(s.method for s in samples)])
    by_method = {name: [s for s in samples if s.method == name] for name in names}
    best = best_fixed({name: _decode(own).tokens_per_s for name, own in by_method.items()})
    plain = {(s.prompt, s.repeat): s for s in by_method[PLAIN]}
    rows = []
    for method, own in by_method.items():
        stats = _decode(own)
        rows.append(
            {
                "method": method,
                **stats.to_json(),
                **_ratios("speed_up", own, by_method[PLAIN]),
                **_ratios("over_best_fixed", own, by_method[best] if best else []),
                "prefill_s": sum(s.prefill_s for s in own),
                "decode_s": stats.seconds,
                "num_differing": sum(s.token_ids != plain[s.prompt, s.repeat].token_ids for s in own),
                "candidate_lengths": _histogram(drafted for s in own for drafted, *_ in s.steps),
                "profile": profile.summary([s.stations for s in own if s.stations], sum(len(s.steps) for s in own)),
                "accepted_lengths": _histogram(accepted for s in own for _, accepted, *_ in s.steps),
            }
        )
    line = fixed_line(rows)
    return [{**row, "below_fixed_line": below_fixed_line(row, line)} for row in rows]


def best_fixed(speeds: Mapping[str, float]) -> str | None:
    """The fixed length that was fastest in hindsight, which is the baseline to beat.

    Args:
        speeds: tokens/s by method.
    """
    fixed = [name for name in speeds if family(name) == FIXED]
    return max(fixed, key=lambda name: speeds[name], default=None)


def to_csv(rows: Sequence[dict[str, Any]], target: str) -> str:
    """The table as CSV, every row with the name of the target."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
    writer.writeheader()
    writer.writerows({"target": target, **row} for row in rows)
    return text.getvalue()


def _ratios(name: str, own: Sequence[Sample], base: Sequence[Sample]) -> dict[str, float | None]:
    """Speed over that of a base: of sums over all prompts, and median and quartiles prompt by prompt."""
    keys = (name, f"{name}_median", f"{name}_low", f"{name}_high")
    if not base:
        return dict.fromkeys(keys)
    one_of = {(s.prompt, s.repeat): s for s in base}
    ratios = [_decode([s]).tokens_per_s / _decode([one_of[s.prompt, s.repeat]]).tokens_per_s for s in own]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    values = (_decode(own).tokens_per_s / _decode(base).tokens_per_s, median(ratios), low, high)
    return dict(zip(keys, values, strict=True))


def _histogram(lengths: Iterable[int]) -> list[int]:
    """How many steps had each length, from 0 to the longest."""
    counts = Counter(lengths)
    return [counts[length] for length in range(max(counts, default=-1) + 1)]


def _decode(samples: Sequence[Sample]) -> Stats:
    return Stats(total(s.counts for s in samples), sum(s.decode_s for s in samples))
