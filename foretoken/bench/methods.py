"""What to compare: `plain,fixed:1..4,heuristic` -> named variants of one loaded model."""

from __future__ import annotations

import re

from foretoken.config import Method
from foretoken.errors import ConfigError
from foretoken.llm import LLM

PLAIN = "plain"


def names(specs: str) -> list[str]:
    """Length policies to compare with plain decoding; needs no model.

    Args:
        specs: comma-separated; `name:value` sets the first option, `name:1..4` gives one variant per value, and `plain`
            is plain decoding, which always takes part.

    Raises:
        ConfigError: a name or value that does not exist, or nothing to compare.
    """
    found = [name for spec in specs.split(",") if spec.strip() for name in _expand(spec.strip())]
    if not found:
        raise ConfigError("no methods to compare", hint="for example `--methods plain,fixed:1..4,confidence`")
    drafting = [name for name in dict.fromkeys(found) if name != PLAIN]
    for name in drafting:
        Method.parse("length", name).config()
    return drafting


def variants(llm: LLM, drafting: list[str]) -> dict[str, LLM]:
    """Models to compare, by name, plain decoding first; loads the weights, which they share.

    Raises:
        ConfigError: there is nothing to draft with.
    """
    if llm.draft is None and drafting:
        raise ConfigError("there is no draft model to compare length policies with", hint="give one with `--draft`")
    return {PLAIN: llm.using(draft="none"), **{name: llm.using(length=name) for name in drafting}}


def _expand(spec: str) -> list[str]:
    """`fixed:1..3` -> `fixed:1`, `fixed:2`, `fixed:3`."""
    match = re.fullmatch(r"(.+):(\d+)\.\.(\d+)", spec)
    if match is None:
        return [spec]
    name, first, last = match[1], int(match[2]), int(match[3])
    if last < first:
        raise ConfigError(f"`{spec}` is an empty range", hint=f"write `{name}:{last}..{first}`")
    return [f"{name}:{value}" for value in range(first, last + 1)]
