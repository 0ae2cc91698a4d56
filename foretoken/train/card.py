"""Model cards: what a model was trained on and how, what it is worth, and what its data may be used for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foretoken.models.store import write_whole
from foretoken.train.overlap import Overlap
from foretoken.train.texts import UNSTATED, Source

FILE = "training.card.json"


def data_card(sources: Sequence[Source], found: Sequence[Sequence[Overlap]], num_prompts: int) -> dict[str, Any]:
    """What a card says of the data.

    Args:
        sources: all of them.
        found: of each source, the texts that were left out because they hold an evaluation prompt.
        num_prompts: evaluation prompts that were looked for.
    """
    return {
        "sources": [{**source.to_json(), "excluded": len(some)} for source, some in zip(sources, found, strict=True)],
        "overlap": {
            "num_evaluation_prompts": num_prompts,
            "num_excluded": sum(map(len, found)),
            "examples": [overlap.prompt[:200] for some in found for overlap in some][:5],
        },
        "licences_stated": all(source.licence != UNSTATED for source in sources),
    }


def write_card(folder: Path, title: str, about: str, card: Mapping[str, Any]) -> None:
    """Write the card beside a model, as JSON and, for people, as README.md.

    Args:
        folder: of the model.
        title: its name.
        about: a paragraph on what it is and what it is not for.
        card: has `data`, which `data_card` made; everything else is listed in its order.
    """
    write_whole(folder / FILE, json.dumps(card, indent=1) + "\n")
    lines = [f"# {title}", "", about, ""]
    for name, value in card.items():
        if name != "data":
            lines += [f"## {_words(name)}", "", *_listed(value), ""]
    lines += ["## Data", "", "| source | licence | rows | left out | SHA-256 |", "|---|---|---:|---:|---|"]
    lines += [
        f"| {s['name']} | {s['licence']} | {s['rows']} | {s['excluded']} | `{s['sha256']}` |"
        for s in card["data"]["sources"]
    ]
    overlap = card["data"]["overlap"]
    lines += ["", _overlap_words(overlap), ""]
    if not card["data"]["licences_stated"]:
        lines += ["The licence of a source is not stated here: clear it before these weights are passed on.", ""]
    write_whole(folder / "README.md", "\n".join(lines))


def _overlap_words(overlap: Mapping[str, Any]) -> str:
    looked, out = overlap["num_evaluation_prompts"], overlap["num_excluded"]
    if not looked:
        return "Not compared with any evaluation prompts."
    return f"Compared with {looked} evaluation prompts; {out} texts that hold one were left out of training."


def _listed(value: Any) -> list[str]:
    """Lines of Markdown: a table of what is a list of objects, a list of what is an object, else a line."""
    if isinstance(value, Mapping):
        return [f"- {_words(key)}: {_inline(one)}" for key, one in value.items()]
    if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        names = list(value[0])
        head = ["| " + " | ".join(map(_words, names)) + " |", "|" + "---|" * len(names)]
        return head + ["| " + " | ".join(_inline(one.get(name)) for name in names) + " |" for one in value]
    return [_inline(value)]


def _inline(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(key)} {_inline(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_inline, value))
    return str(value)


def _words(name: str) -> str:
    return name.replace("_", " ")
