"""Method name -> class, imported on use. Adding a method means one file and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from foretoken.errors import ConfigError, did_you_mean

METHODS: dict[str, dict[str, str]] = {
    "draft": {
        "blockwise": "foretoken.draft.blockwise:Blockwise",
        "falcon": "foretoken.draft.falcon:Falcon",
        "model": "foretoken.draft.model:ModelDrafter",
        "none": "foretoken.draft.none:NoDraft",
        "pass": "foretoken.draft.lookahead:Pass",
        "suffix": "foretoken.draft.suffix:Suffix",
    },
    "length": {
        "bandit": "foretoken.length.bandit:Bandit",
        "confidence": "foretoken.length.confidence:Confidence",
        "disco": "foretoken.length.disco:Disco",
        "fixed": "foretoken.length.fixed:Fixed",
        "heuristic": "foretoken.length.heuristic:Heuristic",
        "proxy": "foretoken.length.proxy:Proxy",
        "renewal": "foretoken.length.renewal:Renewal",
        "specdec++": "foretoken.length.specdecpp:SpecDecPP",
    },
    "shape": {
        "chain": "foretoken.shape.chain:Chain",
    },
    "accept": {
        "block": "foretoken.accept.block:Block",
        "coupled": "foretoken.accept.coupled:Coupled",
        "greedy": "foretoken.accept.greedy:Greedy",
        "rejection": "foretoken.accept.rejection:Rejection",
    },
}


def find(station: str, name: str) -> type[Any]:
    """Class of a method.

    Args:
        station: "draft", "length", "shape" or "accept".
        name: a registered name.

    Raises:
        ConfigError: there is no such method.
    """
    known = METHODS[station]
    if name not in known:
        raise ConfigError(f"unknown {station} method `{name}`", hint=did_you_mean(name, known))
    module, _, attribute = known[name].partition(":")
    found: type[Any] = getattr(import_module(module), attribute)
    return found
