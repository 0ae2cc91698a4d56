"""The pictures of a comparison: speed-ups, the plane of rates, candidate lengths, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from foretoken.bench.methods import FIXED, ORACLE, PLAIN
from foretoken.bench.plane import curves, fixed_line
from foretoken.errors import ConfigError

FORMATS = (".svg", ".png")
INK, GREY, PALE, GREEN = "#3c4043", "#9aa0a6", "#dadce0", "#1a7f37"
FAMILIES = ("#0b57d0", "#c4560a", "#8430ce", "#00796b", "#b3261e", "#7a5c00", "#ad1a72")
LONGEST = 12  # longer drafts share the last bar

Row = Mapping[str, Any]


def check_plot(path: Path) -> None:
    """Refuse before a long run what could not be drawn after it.

    Raises:
        ConfigError: matplotlib is not installed, or the suffix is none of `FORMATS`.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"cannot draw to `{path}`", hint=f"name a file that ends in {' or '.join(FORMATS)}")
    check_library("matplotlib")


def check_library(name: str) -> None:
    """Refuse to draw without a library of the extra `plot`.

    Raises:
        ConfigError: it is not installed.
    """
    if find_spec(name) is None:
        raise ConfigError(f"drawing needs {name}", hint='install it with `pip install "foretoken[plot]"`')


def fastest(rows: Sequence[Row]) -> str:
    """The method with the best median speed-up; the oracle is none that one can use."""
    return str(max((r for r in rows if r["method"] != ORACLE), key=lambda r: r["speed_up_median"])["method"])


def plot_speed_ups(rows: Sequence[Row], caption: str, path: Path) -> None:
    """Draw every method's speed over that of plain decoding to a file.

    Args:
        rows: as `summarise` returns them.
        caption: what was measured, on what.
        path: where to write, as `check_plot` allows.
    """
    figure = speed_ups(rows, caption)
    # Without its date the same run draws the same file.
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def speed_ups(rows: Sequence[Row], caption: str = "", width: float = 7) -> Any:
    """Speed over that of plain decoding: medians over prompts as bars, quartiles as whiskers."""
    from matplotlib.figure import Figure

    names = [row["method"] for row in rows]
    medians = [row["speed_up_median"] for row in rows]
    highs = [row["speed_up_high"] for row in rows]
    spread = [
        [row["speed_up_median"] - row["speed_up_low"] for row in rows],
        [row["speed_up_high"] - row["speed_up_median"] for row in rows],
    ]
    figure = Figure(figsize=(width, 0.7 + 0.3 * len(rows)), layout="constrained")
    axes = figure.subplots()
    best = fastest(rows)
    colours = ["white" if name == ORACLE else GREEN if name == best else GREY for name in names]
    edges = [GREY if name == ORACLE else colour for name, colour in zip(names, colours, strict=True)]
    axes.barh(names, medians, height=0.7, color=colours, edgecolor=edges, xerr=spread, ecolor=INK, capsize=2)
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=":")
    # One hiccup of the machine may stretch a quartile beyond all measure: such a whisker leaves the picture.
    end = max(*medians, *(high for high in highs if high < 2 * max(medians)))
    for index, (value, high) in enumerate(zip(medians, highs, strict=True)):
        axes.text(min(max(value, high), end) + 0.015 * end, index, f"{value:.2f}x", va="center", fontsize=9)
    axes.set_xlim(0, 1.14 * end)
    axes.invert_yaxis()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    below = f"\n{caption}" if caption else ""
    axes.set_xlabel(f"speed over plain decoding (median of prompts, quartiles){below}", fontsize=9)
    return figure


def colour_of(rows: Sequence[Row]) -> dict[str, str]:
    """A colour for every family, greys for what policies are compared with."""
    free = iter(FAMILIES * len(rows))
    known = {PLAIN: INK, FIXED: GREY, ORACLE: INK}
    return {name: known.get(name) or next(free) for name in curves(rows)}


def plane(rows: Sequence[Row]) -> Any:
    """Discard rate against verification rate: the line of fixed lengths, every family's curve, plain and oracle."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*fixed_line(rows), strict=True), color=PALE, linewidth=1.5, zorder=1)
    colours = colour_of(rows)
    for name, points in curves(rows).items():
        x = [point["discard_rate"] for point in points]
        y = [point["verification_rate"] for point in points]
        marker = {PLAIN: "s", ORACLE: "*"}.get(name, "o")
        size, line = (160, "") if name == ORACLE else (26, "-" if name != FIXED else "")
        axes.plot(x, y, line or " ", color=colours[name], linewidth=1.2, zorder=2)
        axes.scatter(x, y, s=size, marker=marker, color=colours[name], edgecolor="white", zorder=3, label=name)
        if name not in (PLAIN, ORACLE):
            offset, place = ((4, 4), "left") if name == FIXED else ((-4, -4), "right")
            for point, at in zip(points, zip(x, y, strict=True), strict=True):
                value = point["method"].partition(":")[2]
                up = "bottom" if name == FIXED else "top"
                axes.annotate(
                    value, at, offset, textcoords="offset points", ha=place, va=up, fontsize=8, color=colours[name]
                )
    axes.margins(0.1)
    axes.set_xlim(left=min(axes.get_xlim()[0], -0.03))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("discard rate: drafted in vain, per emitted token")
    axes.set_ylabel("verification rate: target forwards per token")
    axes.legend(frameon=False, fontsize=9)
    return figure


def lengths(row: Row, colour: str, longest: int, tallest: float) -> Any:
    """How long candidates were (outline) and how many of them were accepted (filled), as shares of a method's steps.

    Args:
        row: of one method.
        colour: of its family.
        longest, tallest: the axes' ends, the same for all methods.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.5, 1.55), layout="constrained")
    axes = figure.subplots()
    drafted, accepted = (shares(row[key], longest) for key in ("candidate_lengths", "accepted_lengths"))
    axes.bar(range(longest + 1), accepted, width=0.8, color=colour, alpha=0.55)
    axes.bar(range(longest + 1), drafted, width=0.8, fill=False, edgecolor=INK, linewidth=0.9)
    axes.set_xlim(-0.6, longest + 0.6)
    axes.set_ylim(0, tallest)
    step = 2 if longest > 5 else 1
    ticks = range(0, longest + 1, step)
    axes.set_xticks(ticks, [f"{t}+" if t == longest == LONGEST else str(t) for t in ticks])
    axes.set_yticks([0, 0.5, 1] if tallest > 0.5 else [0, 0.25, 0.5])
    axes.tick_params(labelsize=8, length=2)
    axes.set_title(row["method"], loc="left", fontsize=9, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def shares(counts: Sequence[int], longest: int) -> list[float]:
    """Counts by length -> shares by length from 0 to `longest`, which takes all beyond it."""
    padded = [*counts, *[0] * (longest + 1 - len(counts))]
    return [n / max(sum(counts), 1) for n in (*padded[:longest], sum(padded[longest:]))]


def calibration(card: Mapping[str, Any]) -> Any:
    """Predicted against observed acceptance, before and after calibration; dots as large as what they stand for."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=PALE, zorder=1)
    for key, label, colour in (("reliability_before", "before", GREY), ("reliability", "after", GREEN)):
        if bins := card.get(key):
            x, y = [b["predicted"] for b in bins], [b["observed"] for b in bins]
            most = max(b["count"] for b in bins)
            axes.plot(x, y, color=colour, linewidth=1, zorder=2)
            sizes = [8 + 52 * b["count"] / most for b in bins]
            axes.scatter(x, y, s=sizes, color=colour, edgecolor="white", zorder=3, label=f"{label} calibration")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("predicted probability of acceptance")
    axes.set_ylabel("observed")
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    return figure
