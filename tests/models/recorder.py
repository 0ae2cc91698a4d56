"""What a CUDA graph does, on a CPU: operations recorded once run again on the same memory, whatever is in it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from foretoken.models.capture import Step

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

    Attributes:
        captured: how many steps were.
        replays: how often one of them ran.
    """

    def __init__(self) -> None:
        self.captured = self.replays = 0

    def __call__(self, step: Step) -> Step:
        with _Recording() as recording:
            out = step()
        with torch.inference_mode(False), torch.no_grad():
            for part in out:  # a capture computes nothing
                if part is not None:
                    part.fill_(torch.nan)
        self.captured += 1

        def replay() -> tuple[Tensor, Tensor | None]:
            self.replays += 1
            with torch.inference_mode(False), torch.no_grad():
                for function, args, options, results in recording.calls:
                    again = function(*args, **options)
                    for place, value in zip(tree_leaves(results), tree_leaves(again), strict=True):
                        if isinstance(place, Tensor) and place.data_ptr() != value.data_ptr():
                            place.copy_(value)
            return out

        return replay


class _Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masks = [one for one in tree_leaves(args[1:]) if isinstance(one, Tensor) and one.dtype == torch.bool]
        if func in FORBIDDEN or (func in (aten.index.Tensor, aten.index_put_.default) and masks):
            raise RuntimeError(f"{func} waits for the device")
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out
