"""Where the time of a step goes. Stations are timed from outside, so that without a profile nothing is spent on it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from inspect import isfunction
from time import perf_counter
from typing import Any

import torch

from foretoken import engine as path
from foretoken.engine import Engine
from foretoken.length.base import LengthPolicy
from foretoken.models.base import LanguageModel

FORWARDS = ("draft_forward", "target_forward")
STATIONS = (*FORWARDS, "draft", "length", "verify", "accept", "commit", "stream", "rest")
# All that a length policy is asked and told, but for what may be captured with the draft's forwards.
DECISIONS = tuple(
    name for name, one in vars(LengthPolicy).items() if isfunction(one) and not name.startswith("_") and name != "look"
)


@contextmanager
def profiled(engine: Engine, draft_model: LanguageModel | None) -> Iterator[dict[str, float]]:
    """Time the stations of an engine's steps while the block runs; costs about a microsecond per call.

    On a GPU every station waits for the device, which a step otherwise does once.

    Args:
        engine: at work.
        draft_model: what its drafter runs, if anything.

    Yields:
        Seconds by station, in which what other stations took is not counted: `draft` is drafting without the draft's
        forwards and the length policy. They add up to the seconds of all steps.
    """
    places = [
        *((path, name, name) for name in ("verify", "commit", "stream")),
        (path, "judge", "accept"),
        *((engine.drafter, name, "draft") for name in ("draft", "rest", "observe")),
        *((engine.length, name, "length") for name in DECISIONS),
        (engine.target, "forward", "target_forward"),
        *((draft_model, name, "draft_forward") for name in ("forward", "chain") if draft_model),
        (engine, "step", "rest"),
    ]
    wait = torch.cuda.synchronize if engine.batch.device.type == "cuda" else lambda: None
    with timed(STATIONS, places, wait) as seconds:
        yield seconds


@contextmanager
def timed(
    stations: Sequence[str], places: Sequence[tuple[Any, str, str]], wait: Callable[[], None] = lambda: None
) -> Iterator[dict[str, float]]:
    """Time what objects do while the block runs; costs about a microsecond per call.

    Args:
        stations: names of what is timed.
        places: (object, its method, station).
        wait: waits until a device is done.

    Yields:
        Seconds by station, in which what other stations took is not counted.
    """
    clock = _Clock(stations, wait)
    with ExitStack() as undo:
        for owner, name, station in places:
            undo.callback(_put_back(owner, name))
            setattr(owner, name, clock.timing(getattr(owner, name), station))
        yield clock.seconds


def summary(seconds: Sequence[Mapping[str, float]], num_steps: int) -> dict[str, Any] | None:
    """What is published: seconds of a step, each station's share of them, and that of all but the models' forwards.

    Args:
        seconds: by station, as `profiled` gives them; none where nothing was timed.
        num_steps: how many steps took them.
    """
    whole = sum(sum(one.values()) for one in seconds)
    if not whole:
        return None
    shares = {station: sum(one[station] for one in seconds) / whole for station in STATIONS}
    overhead = 1 - sum(shares[station] for station in FORWARDS)
    return {"step_s": whole / num_steps, "overhead_rate": overhead, "shares": shares}


class _Clock:
    """Nested stopwatches: an inner one stops the outer one.

    Args:
        stations: as in `timed`.
        wait: as in `timed`.
    """

    def __init__(self, stations: Sequence[str], wait: Callable[[], None]) -> None:
        self.seconds = dict.fromkeys(stations, 0.0)
        self._wait = wait
        self._inner = [0.0]  # seconds that inner stations took, by depth

    def timing(self, function: Callable[..., Any], station: str) -> Callable[..., Any]:
        """The same function, timed."""

        @functools.wraps(function)
        def timed(*args: Any, **options: Any) -> Any:
            self._inner.append(0.0)
            begin = perf_counter()
            try:
                result = function(*args, **options)
                self._wait()
                return result
            finally:
                took = perf_counter() - begin
                self.seconds[station] += took - self._inner.pop()
                self._inner[-1] += took

        return timed


def _put_back(owner: Any, name: str) -> Callable[[], None]:
    """Undoes what will be set, on an instance whose class has the original too."""
    if name in vars(owner):
        return functools.partial(setattr, owner, name, getattr(owner, name))
    return functools.partial(delattr, owner, name)
