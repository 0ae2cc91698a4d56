"""The (discard rate, verification rate) plane, which compares policies without a clock.

Whatever a draft step and a target step cost, a policy nearer to the origin is faster: the two rates are what a token
costs in each of them. Fixed lengths draw the line to beat, from plain decoding at (0, 1) to the right and down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from foretoken.bench.methods import FIXED, PLAIN, family

Row = Mapping[str, Any]


def fixed_line(rows: Sequence[Row]) -> list[tuple[float, float]]:
    """Points (discard rate, verification rate) of plain decoding and of every fixed length, by discard rate."""
    fixed = [(row["discard_rate"], row["verification_rate"]) for row in rows if family(row["method"]) == FIXED]
    return sorted([(0.0, 1.0), *fixed])


def below_fixed_line(row: Row, line: Sequence[tuple[float, float]]) -> float | None:
    """How far below the line of fixed lengths a policy verifies at its own discard rate; negative is above.

    Returns:
        None for plain decoding and fixed lengths themselves, and where the line does not reach.
    """
    discards, verifications = zip(*line, strict=True)
    if family(row["method"]) in (PLAIN, FIXED) or len(line) == 1 or row["discard_rate"] > discards[-1]:
        return None
    return float(np.interp(row["discard_rate"], discards, verifications)) - float(row["verification_rate"])


def curves(rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """By family, its points over its values, in the order of the rows."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        point = {key: row[key] for key in ("method", "discard_rate", "verification_rate")}
        found.setdefault(family(row["method"]), []).append(point)
    return found
