"""Samples -> the table and the JSON that are published."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

from foretoken.bench.methods import PLAIN
from foretoken.bench.run import Sample
from foretoken.metrics import Stats, total

COLUMNS = (
    "method",
    "tokens_per_s",
    "speed_up",
    "speed_up_median",
    "speed_up_low",
    "speed_up_high",
    "block_efficiency",
    "acceptance_rate",
    "discard_rate",
    "verification_rate",
    "prefill_s",
    "decode_s",
    "num_tokens",
    "num_differing",
)


def summarise(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """One row per method, plain decoding first.

    `speed_up` is the method's decode tokens/s over that of plain decoding, both sums over the same prompts; the median
    and the quartiles (`low`, `high`) are of the same ratio prompt by prompt. `num_differing` counts runs whose tokens
    are not those of plain decoding, which at temperature 0 in float32 must be none.
    """
    plain = {(s.prompt, s.repeat): s for s in samples if s.method == PLAIN}
    rows = []
    for method in dict.fromkeys([PLAIN, *(s.method for s in samples)]):
        own = [s for s in samples if s.method == method]
        stats = _decode(own)
        ratios = [_decode([s]).tokens_per_s / _decode([plain[s.prompt, s.repeat]]).tokens_per_s for s in own]
        low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
        rows.append(
            {
                "method": method,
                **stats.to_json(),
                "speed_up": stats.tokens_per_s / _decode(list(plain.values())).tokens_per_s,
                "speed_up_median": median(ratios),
                "speed_up_low": low,
                "speed_up_high": high,
                "prefill_s": sum(s.prefill_s for s in own),
                "decode_s": stats.seconds,
                "num_differing": sum(s.token_ids != plain[s.prompt, s.repeat].token_ids for s in own),
            }
        )
    return rows


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The table as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _decode(samples: Sequence[Sample]) -> Stats:
    return Stats(total(s.counts for s in samples), sum(s.decode_s for s in samples))
