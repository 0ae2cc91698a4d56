"""Who has the cores: OpenVINO's threads and torch's wait for work by spinning, so only one of them may have all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

_taken: int | None = None  # what torch had before its threads were taken away


def available() -> int:
    """Threads that a forward may use: torch's setting, as it was before `settle` changed it."""
    return torch.get_num_threads() if _taken is None or torch.get_num_threads() > 1 else _taken


def settle(backends: Iterable[str]) -> None:
    """Leave torch one thread where OpenVINO runs all models, and give the others back where it does not.

    What torch still does then is small. Changes a setting of the whole process: with torch's own threads, plain
    decoding of the built-in target is a fifth slower on two cores.
    """
    global _taken
    threads = available()
    if all(backend == "openvino" for backend in backends):
        _taken = threads
        torch.set_num_threads(1)
    elif _taken is not None:
        _taken = None
        torch.set_num_threads(threads)


@contextmanager
def spared() -> Iterator[None]:
    """Leave torch one thread meanwhile, as `settle` may do later, so that what is timed is what will be."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
