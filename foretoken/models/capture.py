"""How a step of one size runs again and again: as a CUDA graph where there is a GPU, as it is elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

Step: TypeAlias = Callable[[], tuple[Tensor, Tensor | None]]
WARM_UP = 1  # runs before a capture, in which libraries allocate what a capture may not


class Capture(Protocol):
    """Makes of a step something that does the same in less time.

    A step must do the same every time: read what is in its input tensors, look at no value on the host, and allocate
    nothing that outlives it but what it returns, which every run writes to the same place.

    Attributes:
        skips: whether a part of a captured step can be left out by a value on the device.
    """

    skips: bool

    def __call__(self, step: Step) -> Step:
        """A function that does what the step does."""
        ...

    def when(self, some: Tensor, part: Callable[[], None]) -> None:
        """Do a part of a step where a value is true; where nothing can be left out, always.

        Args:
            some: [] bool, on the device.
            part: leaves what it finds in tensors that are there before it.
        """
        ...


class AsItIs:
    """Captures nothing; for testing."""

    skips: bool = True

    def __call__(self, step: Step) -> Step:
        """The step."""
        return step

    def when(self, some: Tensor, part: Callable[[], None]) -> None:
        """Look whether it is to be done."""
        if not self.skips or bool(some):
            part()


class CUDAGraphs:
    """Captures steps on a GPU. All graphs share their memory for what is gone when a step ends.

    Args:
        device: the GPU.

    Attributes:
        skips: takes a PyTorch, a CUDA and a driver that know conditional nodes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None
        self.skips = hasattr(torch.cuda.CUDAGraph, "begin_capture_to_if_node")
        self.skips = self.skips and self._can_skip()

    def __call__(self, step: Step) -> Step:
        """A function that does by one launch what the step does."""
        with torch.cuda.device(self._device):
            aside, now = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(now)
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    step()
            now.wait_stream(aside)
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the GPU meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                out = step()

        def replay() -> tuple[Tensor, Tensor | None]:
            with torch.cuda.device(self._device):
                graph.replay()
            return out

        return replay

    def when(self, some: Tensor, part: Callable[[], None]) -> None:
        """Capture a part that is left out where the value is false."""
        if not (self.skips and torch.cuda.is_current_stream_capturing()):
            part()
            return
        graph: Any = torch.cuda.CUDAGraph.get_currently_capturing_graph()
        graph.begin_capture_to_if_node(some)
        try:
            part()
        finally:
            graph.end_capture_to_conditional_node()

    def _can_skip(self) -> bool:
        """Whether a part that only counts is done where the value says so, and nowhere else."""
        try:
            # A capture that fails may leave its device and its stream behind as the current ones.
            with torch.cuda.device(self._device), torch.cuda.stream(torch.cuda.current_stream(self._device)):
                return self._counted() == [0, 1, 1]
        except RuntimeError:
            return False
        finally:
            self._pool = None  # no graph is left that it belongs to

    @torch.inference_mode(False)
    @torch.no_grad()
    def _counted(self) -> list[int]:
        """How often such a part was done after it was not to be, was to be, and was not to be."""
        some = torch.zeros((), dtype=torch.bool, device=self._device)
        done = torch.zeros((), dtype=torch.int64, device=self._device)

        def step() -> tuple[Tensor, None]:
            self.when(some, partial(done.add_, 1))  # type: ignore[arg-type]
            return done, None

        captured, counts = self(step), []
        done.zero_()  # the run before a capture counted, too
        for value in (False, True, False):
            some.fill_(value)
            captured()
            counts.append(int(done))
        return counts


def fastest(device: torch.device) -> Capture | None:
    """What captures steps on a device; None where nothing does."""
    return CUDAGraphs(device) if device.type == "cuda" else None
