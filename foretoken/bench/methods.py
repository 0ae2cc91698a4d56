"""What to compare: `plain,fixed:1..4,heuristic` -> named variants of one loaded model."""

from __future__ import annotations

import re

from foretoken.errors import ConfigError
from foretoken.llm import LLM

PLAIN = "plain"


def variants(llm: LLM, specs: str) -> dict[str, LLM]:
    """Models to compare, by name, sharing their weights.

    Args:
        llm: a loaded model with its draft.
        specs: comma-separated length policies; `name:value` sets the first option, `name:1..4` gives one variant per
            value, and `plain` is plain decoding, which is always included and comes first.

    Raises:
        ConfigError: a name or value that does not exist, or nothing to draft with.
    """
    names = [name for spec in specs.split(",") if spec.strip() for name in _expand(spec.strip())]
    if not names:
        raise ConfigError("no methods to compare", hint="for example `--methods plain,fixed:1..4,confidence`")
    if not llm.methods["draft"].type.uses_model and any(name != PLAIN for name in names):
        raise ConfigError("there is no draft model to compare length policies with", hint="give one with `--draft`")
    chosen = {PLAIN: llm.using(draft="none")}
    for name in names:
        if name != PLAIN:
            chosen[name] = llm.using(length=name)
    return chosen


def _expand(spec: str) -> list[str]:
    """`fixed:1..3` -> `fixed:1`, `fixed:2`, `fixed:3`."""
    match = re.fullmatch(r"(.+):(\d+)\.\.(\d+)", spec)
    if match is None:
        return [spec]
    name, first, last = match[1], int(match[2]), int(match[3])
    if last < first:
        raise ConfigError(f"`{spec}` is an empty range", hint=f"write `{name}:{last}..{first}`")
    return [f"{name}:{value}" for value in range(first, last + 1)]
