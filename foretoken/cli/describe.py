"""What a registered method is, read from its class: the idea, its options and its reference are written there."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

from foretoken.registry import METHODS, find

# A reference ends at a full stop before a new sentence; "et al. 2023" goes on.
REFERENCE = re.compile(r"Reference: (.+?)\.?(?=\.\s+[A-Z]|\.?$)", re.DOTALL)
URL = re.compile(r",? *(https?://[^\s;,]+)")


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """One option of a method, as it is written on a command line."""

    flag: str
    default: Any
    meaning: str


@dataclasses.dataclass(frozen=True, slots=True)
class Description:
    """One method.

    Attributes:
        station: "draft", "length", "shape" or "accept".
        name: as registered.
        idea: one sentence.
        options: with their defaults.
        needs: what it cannot do without: "a draft model", "logits of the drafter", ...
        trained: whether it has weights of its own, which must be trained.
        lossless: whether the text keeps the target's distribution; only acceptance rules decide this.
        references: papers, each with its address if it has one.
        file: where to read it.
    """

    station: str
    name: str
    idea: str
    options: list[Option]
    needs: list[str]
    trained: bool
    lossless: bool
    references: list[str]
    file: str


def describe_all() -> list[Description]:
    """Every registered method, in the order of the registry."""
    return [describe(station, name) for station, names in METHODS.items() for name in names]


def describe(station: str, name: str) -> Description:
    """One registered method."""
    kind = find(station, name)
    doc = inspect.cleandoc(kind.__doc__ or "")
    found = REFERENCE.search(next((part for part in doc.split("\n\n") if part.startswith("Reference: ")), ""))
    return Description(
        station,
        name,
        " ".join(doc.partition("\n\n")[0].split()),
        _options(station, kind.Config),
        _needs(kind),
        _needs_trained(kind),
        bool(getattr(kind, "lossless", True)),
        [" ".join(one.split()) for one in found[1].split("; ")] if found else [],
        kind.__module__.replace(".", "/") + ".py",
    )


def _options(station: str, config: Any) -> list[Option]:
    """Fields of a Config, with their meaning from its docstring."""
    doc = inspect.cleandoc(config.__doc__ or "")
    attributes = doc.partition("Attributes:\n")[2]
    meanings = {
        name: " ".join(text.split())
        for name, text in re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", attributes, re.MULTILINE)
    }
    return [
        Option(f"--{station}.{field.name.replace('_', '-')}", field.default, meanings.get(field.name, ""))
        for field in dataclasses.fields(config)
    ]


def _needs(kind: Any) -> list[str]:
    """What a method asks of the others and of a request."""
    from_drafter = [f"the drafter's {what}" for what in sorted(getattr(kind, "needs", ()))]
    model = ["a draft model"] if getattr(kind, "uses_model", False) else []
    head = ["something trained for it"] if _needs_trained(kind) else []
    greedy = ["temperature 0"] if getattr(kind, "greedy_only", False) else []
    return model + head + from_drafter + greedy


def _needs_trained(kind: Any) -> bool:
    """Whether it is of no use before something was trained for it; most that take a trained part are not."""
    return bool(getattr(kind, "trained", None)) and getattr(kind, "needs_trained", True)
