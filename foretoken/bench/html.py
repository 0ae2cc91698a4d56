"""A run as one HTML page that needs nothing else: no network, no script. It shows what is in the JSON and no more."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from foretoken.bench.methods import family
from foretoken.bench.plot import (
    LONGEST,
    calibration,
    check_library,
    colour_of,
    fastest,
    lengths,
    plane,
    shares,
    speed_ups,
)

TEMPLATE = files("foretoken") / "data" / "report.html"
NONE = "–"

# Heading, what it means, and the fields it shows: one, or a median with its quartiles.
COLUMNS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("tokens/s", "emitted tokens per second of decoding, over all prompts", ("tokens_per_s",)),
    ("speed-up", "over plain decoding, of sums over all prompts", ("speed_up",)),
    (
        "by prompt",
        "speed-up prompt by prompt: median and quartiles",
        ("speed_up_median", "speed_up_low", "speed_up_high"),
    ),
    ("over best fixed", "speed over the fastest fixed length, of sums over all prompts", ("over_best_fixed",)),
    (
        "by prompt",
        "the same prompt by prompt: median and quartiles",
        ("over_best_fixed_median", "over_best_fixed_low", "over_best_fixed_high"),
    ),
    ("tokens per forward", "emitted tokens per target forward", ("block_efficiency",)),
    ("accepted", "of the drafted tokens the target looked at", ("acceptance_rate",)),
    ("discard rate", "tokens drafted in vain per emitted token", ("discard_rate",)),
    ("verification rate", "target forwards per emitted token", ("verification_rate",)),
    (
        "below fixed line",
        "how much lower the verification rate is than fixed lengths reach at this discard rate",
        ("below_fixed_line",),
    ),
    ("differing", "answers that are not those of plain decoding", ("num_differing",)),
)
SIMULATED = ("speed_up", "over_best_fixed", "share_of_oracle", "discard_rate", "verification_rate")


def check_html() -> None:
    """Refuse before a long run what could not be written after it.

    Raises:
        ConfigError: matplotlib or Jinja2 is not installed.
    """
    for library in ("matplotlib", "jinja2"):
        check_library(library)


def page(record: Mapping[str, Any]) -> str:
    """The page.

    Args:
        record: the JSON object of the run (docs/bench.md).
    """
    from jinja2 import Environment

    rows = record["methods"]
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = number
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        record=record,
        by_name={row["method"]: row for row in rows},
        fastest=fastest(rows),
        setup=setup(record),
        columns=COLUMNS,
        table=[(row["method"], [_cell(row, fields) for _, _, fields in COLUMNS]) for row in rows],
        simulated=SIMULATED,
        speed_ups=svg(speed_ups(rows, width=5)),
        plane=svg(plane(rows)),
        lengths=_lengths(rows),
        calibration=[(name, card, svg(calibration(card))) for name, card in record["calibration"].items()],
    )


def number(value: float | None) -> str:
    """A number as tables show it; whole numbers stay whole."""
    return NONE if value is None else str(value) if isinstance(value, int) else f"{value:.2f}"


def setup(record: Mapping[str, Any]) -> dict[str, str]:
    """What was measured, on what."""
    config, hardware = record["config"], record["hardware"]
    sampling = {
        key: value for key, value in config["sampling"].items() if key in ("temperature", "top_k", "top_p", "min_p")
    }
    stations = {key: config[key]["name"] for key in ("draft", "shape", "accept")}
    return {
        "target": config["target"],
        "draft": config["draft_model"] or "none",
        "methods": ", ".join(f"{key} {value}" for key, value in stations.items()),
        "sampling": ", ".join(f"{key.replace('_', '-')} {value:g}" for key, value in sampling.items()),
        "prompts": f"{record['num_prompts']}, up to {config['max_new_tokens']} tokens each, batch 1",
        "rounds": str(record["repeat"]),
        "numbers": f"{config['dtype']} on {config['device']}",
        "hardware": f"{hardware['gpu'] or hardware['cpu']}; cores: {hardware['cores']}, threads: {hardware['threads']}",
        "software": f"torch {hardware['torch']}, transformers {hardware['transformers']}, Python {hardware['python']}",
        "date": record["date"],
        "command": record["command"],
    }


def svg(figure: Any) -> str:
    """A figure as an element of a page, its text as text."""
    from matplotlib import rc_context

    drawn = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "foretoken"}):
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    text = drawn.getvalue()
    return text[text.index("<svg") :]


def _cell(row: Mapping[str, Any], fields: Sequence[str]) -> str:
    if fields == ("acceptance_rate",) and not row["num_tested"]:
        return NONE
    middle, *ends = (row[field] for field in fields)
    return number(middle) + (f" ({number(ends[0])}–{number(ends[1])})" if ends and middle is not None else "")


def _lengths(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A small picture for every method that drafts, all on the same axes."""
    drafting = [row for row in rows if row["num_drafted"]]
    colours = colour_of(rows)
    counts = [row[key] for row in drafting for key in ("candidate_lengths", "accepted_lengths")]
    longest = min(max((len(one) - 1 for one in counts), default=0), LONGEST)
    tallest = 1.05 * max((max(shares(one, longest)) for one in counts), default=1)
    return [svg(lengths(row, colours[family(row["method"])], longest, tallest)) for row in drafting]
