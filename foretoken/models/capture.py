"""How a step of one size runs again and again: as a CUDA graph where there is a GPU, as it is elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

Step: TypeAlias = Callable[[], tuple[Tensor, Tensor | None]]
WARM_UP = 1  # runs before a capture, in which libraries allocate what a capture may not


class CUDAGraphs:
    """Captures steps on a GPU. All graphs share their memory for what is gone when a step ends.

    A step must do the same every time: read what is in its input tensors, look at no value on the host, and allocate
    nothing that outlives it but what it returns, which every run writes to the same place.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

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


def fastest(device: torch.device) -> Callable[[Step], Step] | None:
    """What captures steps on a device; None where nothing does."""
    return CUDAGraphs(device) if device.type == "cuda" else None
