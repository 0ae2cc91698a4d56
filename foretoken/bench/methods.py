"""What to compare: `plain,fixed:1..4,heuristic` -> named variants of one loaded model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from foretoken.bench.oracle import oracle
from foretoken.config import Method
from foretoken.errors import ConfigError
from foretoken.llm import LLM
from foretoken.request import Request

PLAIN, FIXED, ORACLE = "plain", "fixed", "oracle"
BASELINE = tuple(f"{FIXED}:{k}" for k in range(1, 9))


def names(specs: str) -> list[str]:
    """Length policies to compare with plain decoding; needs no model.

    Args:
        specs: comma-separated; `name:value` sets the first option, `name:1..4` gives one variant per value, `plain` is
            plain decoding, which always takes part, and `oracle` knows what will be accepted.

    Raises:
        ConfigError: a name or value that does not exist, or nothing to compare.
    """
    found = [name for spec in specs.split(",") if spec.strip() for name in _expand(spec.strip())]
    if not found:
        raise ConfigError("no methods to compare", hint="for example `--methods plain,fixed:1..4,confidence`")
    drafting = [name for name in dict.fromkeys(found) if name != PLAIN]
    for name in drafting:
        if name != ORACLE:
            Method.parse("length", name).config()
    return drafting


def family(name: str) -> str:
    """The policy without its value: `fixed:2` is of the family `fixed`."""
    return name.partition(":")[0]


def with_baseline(drafting: Sequence[str]) -> list[str]:
    """The same list, with fixed lengths to beat in front if it has none."""
    has_one = any(family(name) == FIXED for name in drafting)
    return list(drafting) if has_one else [*BASELINE, *drafting]


def variants(
    llm: LLM,
    drafting: Sequence[str],
    requests: Sequence[Request] = (),
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, LLM]:
    """Models to compare, by name, plain decoding first; loads the weights, which they share.

    Args:
        llm: target and draft.
        drafting: as `names` returns them.
        requests: what they will be asked, which the oracle has to know.
        progress: told how far the oracle has looked.

    Raises:
        ConfigError: there is nothing to draft with.
    """
    if not llm.methods["draft"].type.drafts and drafting:
        raise ConfigError("there is no drafter to compare length policies with", hint="give one with `--draft`")
    chosen = {PLAIN: llm.using(draft="none"), **{name: llm.using(length=name) for name in drafting if name != ORACLE}}
    # Last, so that what cannot work is refused before the answers are written; then back in the order asked for.
    found = chosen | ({ORACLE: oracle(llm, requests, progress)} if ORACLE in drafting else {})
    return {name: found[name] for name in (PLAIN, *drafting)}


def _expand(spec: str) -> list[str]:
    """`fixed:1..3` -> `fixed:1`, `fixed:2`, `fixed:3`."""
    match = re.fullmatch(r"(.+):(\d+)\.\.(\d+)", spec)
    if match is None:
        return [spec]
    name, first, last = match[1], int(match[2]), int(match[3])
    if last < first:
        raise ConfigError(f"`{spec}` is an empty range", hint=f"write `{name}:{last}..{first}`")
    return [f"{name}:{value}" for value in range(first, last + 1)]
