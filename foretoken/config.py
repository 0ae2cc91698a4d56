"""Fill a method's own frozen Config from text options. Unknown keys and bad values are errors, never ignored."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from foretoken.errors import ConfigError, did_you_mean
from foretoken.registry import METHODS, find

# What a user who says nothing gets, in Python and on the command line.
DEFAULT_TARGET = "builtin:pair"
DEFAULTS = {"length": "renewal", "shape": "chain", "accept": "block"}
BITS = {"none": 16, "int8": 8, "int4": 4, "fp8": 8}  # of a weight
QUANTIZATIONS = tuple(BITS)

TRUE, FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


@dataclass(frozen=True, slots=True)
class Method:
    """One chosen method: its station, registered name and options as text."""

    station: str
    name: str
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def drafter(cls, draft: str, options: Mapping[str, str] | None = None) -> Method:
        """Read what stands for a drafter: a draft model, or a registered name, with a value or without.

        Raises:
            ConfigError: as `parse`.
        """
        if draft.partition(":")[0] in METHODS["draft"] and draft != "model":
            return cls.parse("draft", draft, options)
        return cls("draft", "model", options or {})

    @staticmethod
    def relay(draft: str) -> tuple[Method | None, str]:
        """Read `FIRST+DRAFT`: a drafter that is asked first, if there is one, and what stands for the other."""
        first, plus, then = draft.partition("+")
        if not plus or first.partition(":")[0] not in METHODS["draft"]:
            return None, draft
        return Method.parse("draft", first), then

    @classmethod
    def parse(cls, station: str, spec: str, options: Mapping[str, str] | None = None) -> Method:
        """Read `name`, or `name:value` where the value is that of the method's first option (`fixed:4`).

        Raises:
            ConfigError: there is no such method, it takes no options, or its first one is given twice.
        """
        name, colon, value = spec.partition(":")
        merged = {key.replace("_", "-"): text for key, text in (options or {}).items()}
        if colon:
            keys = option_names(find(station, name))
            if not keys:
                raise ConfigError(f"{station} method `{name}` takes no options", hint=f"write `{name}`")
            if merged.setdefault(keys[0], value) != value:
                raise ConfigError(
                    f"option `{keys[0]}` of {station} method `{name}` is given twice",
                    hint=f"write `{spec}` or `--{station}.{keys[0]} {merged[keys[0]]}`",
                )
        return cls(station, name, merged)

    @property
    def type(self) -> type[Any]:
        """The method's class."""
        return find(self.station, self.name)

    def config(self) -> Any:
        """The method's Config, filled and checked.

        Raises:
            ConfigError: an option is unknown, cannot be read, or is out of range.
        """
        return fill(self.type.Config, self.options, f"{self.station} method `{self.name}`", f"--{self.station}.")


def default_draft(target: str) -> str:
    """What drafts for a target when the user says nothing: its own text, and the draft that comes with the target."""
    return f"suffix+{target}" if target.startswith("builtin:") else "suffix"


def option_names(method: type[Any]) -> list[str]:
    """A method's options as they are written on a command line."""
    return [f.name.replace("_", "-") for f in dataclasses.fields(method.Config)]


def fill(config: type[Any], options: Mapping[str, str], owner: str, prefix: str = "") -> Any:
    """Build a config dataclass from text options.

    Args:
        config: a dataclass.
        options: option name (with `-` or `_`) -> text.
        owner: whose options these are, for messages.
        prefix: how options are written, for messages.

    Raises:
        ConfigError: an option is unknown, cannot be read, or is out of range.
    """
    types = typing.get_type_hints(config)
    known = {f.name: types[f.name] for f in dataclasses.fields(config)}
    values = {}
    for key, text in options.items():
        name = key.replace("-", "_")
        if name not in known:
            written = [prefix + n.replace("_", "-") for n in known]
            raise ConfigError(f"unknown option `{prefix}{key}` for {owner}", hint=did_you_mean(prefix + key, written))
        values[name] = _read(text, known[name], prefix + key)
    return config(**values)


def _bool(text: str) -> bool:
    if text.lower() not in TRUE | FALSE:
        raise ValueError
    return text.lower() in TRUE


READERS: dict[type, tuple[Callable[[str], Any], str]] = {
    bool: (_bool, "true or false"),
    int: (int, "a whole number"),
    float: (float, "a number"),
    str: (str, "text"),
}


def _read(text: str, kind: Any, option: str) -> Any:
    """Read one value as the field's type: one of `READERS`, or one of them or None."""
    kinds = typing.get_args(kind) or (kind,)
    if type(None) in kinds and text.lower() == "none":
        return None
    read, words = next(READERS[k] for k in kinds if k in READERS)
    try:
        return read(text)
    except ValueError:
        raise ConfigError(f"option `{option}` cannot be {text!r}", hint=f"it takes {words}") from None
