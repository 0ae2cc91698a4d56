"""The speed-up picture."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from foretoken.errors import ConfigError

FORMATS = (".svg", ".png")
GREY, GREEN = "#9aa0a6", "#1a7f37"


def check_plot(path: Path) -> None:
    """Refuse before a long run what could not be drawn after it.

    Raises:
        ConfigError: matplotlib is not installed, or the suffix is none of `FORMATS`.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"cannot draw to `{path}`", hint=f"name a file that ends in {' or '.join(FORMATS)}")
    if find_spec("matplotlib") is None:
        raise ConfigError("drawing needs matplotlib", hint='install it with `pip install "foretoken[plot]"`')


def plot_speed_ups(rows: Sequence[dict[str, Any]], caption: str, path: Path) -> None:
    """Draw every method's speed over that of plain decoding: medians over prompts as bars, quartiles as whiskers.

    Args:
        rows: as `summarise` returns them.
        caption: what was measured, on what.
        path: where to write, as `check_plot` allows.
    """
    from matplotlib.figure import Figure

    names = [row["method"] for row in rows]
    medians = [row["speed_up_median"] for row in rows]
    spread = [
        [row["speed_up_median"] - row["speed_up_low"] for row in rows],
        [row["speed_up_high"] - row["speed_up_median"] for row in rows],
    ]
    figure = Figure(figsize=(7, 0.7 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    colours = [GREEN if value == max(medians) else GREY for value in medians]
    axes.barh(names, medians, color=colours, xerr=spread, ecolor="#3c4043", capsize=2)
    axes.axvline(1, color="#3c4043", linewidth=0.8, linestyle=":")
    for index, (value, high) in enumerate(zip(medians, [row["speed_up_high"] for row in rows], strict=True)):
        axes.text(max(value, high) + 0.02, index, f"{value:.2f}x", va="center", fontsize=9)
    axes.invert_yaxis()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    axes.set_xlabel(f"speed over plain decoding (median of prompts, quartiles)\n{caption}", fontsize=9)
    # Without its date the same run draws the same file.
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
