"""Run every method on every prompt, interleaved, so that drift of the machine falls on all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

from foretoken.bench.profile import DECISIONS, profiled, timed
from foretoken.llm import LLM
from foretoken.request import Request
from foretoken.types import Counts, Row

PARTS = ("draft", "length", "rest")  # of a step


@dataclass(frozen=True, slots=True)
class Sample:
    """One request, run alone.

    Attributes:
        method: the variant's name.
        prompt: index of the prompt.
        repeat: which repetition.
        prefill_s: seconds until the prompt was read by target and drafter.
        decode_s: seconds from there to the last token.
        counts: what happened.
        steps: (drafted, accepted, draft forwards, seconds of drafting, of deciding lengths, of the rest) of every step.
        token_ids: emitted ids.
        stations: seconds by station of all steps together (see `profiled`); None where they were not timed.
    """

    method: str
    prompt: int
    repeat: int
    prefill_s: float
    decode_s: float
    counts: Counts
    steps: list[tuple[int, int, int, float, float, float]]
    token_ids: list[int]
    stations: dict[str, float] | None = None


def interleave(
    variants: dict[str, LLM],
    requests: Sequence[Request],
    repeat: int = 1,
    progress: Callable[[int, int], None] = lambda done, of: None,
    profile: bool = False,
) -> Iterator[Sample]:
    """Run prompt by prompt, every method in turn, starting with another one each time; warm-up is not reported.

    Answers are whole, as those of `LLM.generate`: nobody reads along.

    Args:
        variants: models to compare, by name.
        requests: one per prompt.
        repeat: rounds over all prompts.
        progress: told how many runs are done, and of how many.
        profile: time the stations of every step.
    """
    names = list(variants)
    for name in names:
        _measure(variants[name], name, requests[0], 0, 0)
    done, of = 0, repeat * len(requests) * len(names)
    for turn in range(repeat):
        for index, request in enumerate(requests):
            for offset in range(len(names)):
                name = names[(index + turn + offset) % len(names)]
                yield _measure(variants[name], name, request, index, turn, profile)
                done += 1
                progress(done, of)


def _measure(llm: LLM, name: str, request: Request, prompt: int, repeat: int, profile: bool = False) -> Sample:
    """Run one request alone in a fresh engine."""
    engine = llm.engine()
    begin = time.perf_counter()
    (row,) = engine.start([replace(request, streams=False)])
    started = time.perf_counter()
    places = [
        *((engine.drafter, name, "draft") for name in ("draft", "rest")),
        *((engine.length, name, "length") for name in DECISIONS),
        (engine, "step", "rest"),
    ]
    steps = []
    profiling = profiled(engine, llm.models[1]) if profile else nullcontext()
    with timed(PARTS, places) as spent, profiling as stations:
        while engine.batch.rows:
            before = _counts(row)
            spent.update(dict.fromkeys(PARTS, 0.0))
            engine.step()
            drafted, accepted, forwards = (now - then for now, then in zip(_counts(row), before, strict=True))
            steps.append((drafted, accepted, forwards, spent["draft"], spent["length"], spent["rest"]))
    ended = time.perf_counter()
    return Sample(name, prompt, repeat, started - begin, ended - started, row.counts, steps, row.output, stations)


def _counts(row: Row) -> tuple[int, int, int]:
    return row.counts.num_drafted, row.counts.num_accepted, row.counts.num_draft_forwards
