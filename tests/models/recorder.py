"""What a CUDA graph does, on a CPU: operations recorded once run again on the same memory, whatever is in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from foretoken.models.capture import Step

Call = tuple[Any, Any, Any, Any]  # operation, arguments, options, results; or None, when, calls, None
aten = torch.ops.aten
# What waits for a value on the host, or whose size depends on one.
FORBIDDEN = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.equal.default,
}


class Recorder:
    """Stands in for `CUDAGraphs`.

    Args:
        skips: whether it knows conditional nodes.

    Attributes:
        captured: how many steps were.
        replays: how often one of them ran.
        skipped: how many parts were left out.
        skips: as given.
    """

    def __init__(self, skips: bool = True) -> None:
        self.captured = self.replays = self.skipped = 0
        self.skips = skips
        self._recording = _Recording()

    def __call__(self, step: Step) -> Step:
        with _Recording() as recording:
            self._recording = recording
            out = step()
        with torch.inference_mode(False), torch.no_grad():
            for part in out:  # a capture computes nothing
                if part is not None:
                    part.fill_(torch.nan if part.is_floating_point() else -1)
        self.captured += 1

        def replay() -> tuple[Tensor, Tensor | None]:
            self.replays += 1
            with torch.inference_mode(False), torch.no_grad():
                self._run(recording.calls)
            return out

        return replay

    def when(self, some: Tensor, part: Callable[[], None]) -> None:
        if not self.skips:
            part()
            return
        outside, self._recording.calls = self._recording.calls, []
        part()
        inside, self._recording.calls = self._recording.calls, outside
        self._recording.calls.append((None, some, inside, None))

    def _run(self, calls: list[Call]) -> None:
        for function, args, options, results in calls:
            if function is None:
                self.skipped += not bool(args)
                self._run(options if bool(args) else [])
                continue
            again = function(*args, **options)
            for place, value in zip(tree_leaves(results), tree_leaves(again), strict=True):
                if isinstance(place, Tensor) and place.data_ptr() != value.data_ptr():
                    place.copy_(value)


class _Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masks = [one for one in tree_leaves(args[1:]) if isinstance(one, Tensor) and one.dtype == torch.bool]
        if func in FORBIDDEN or (func in (aten.index.Tensor, aten.index_put_.default) and masks):
            raise RuntimeError(f"{func} waits for the device")
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out
