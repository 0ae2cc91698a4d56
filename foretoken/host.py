"""Between a device and the host: every look waits for all that is going on there, so it happens at once and rarely."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def to_host(*tensors: Tensor) -> Sequence[Tensor]:
    """The same tensors on the CPU, all brought there in one copy."""
    far = [one for one in tensors if one.device.type != "cpu"]
    if not far:
        return tensors
    # float64 holds every id and every probability as it is.
    flat = torch.cat([one.reshape(-1).to(torch.float64) for one in far]).cpu()
    parts = iter(torch.split(flat, [one.numel() for one in far]))
    return [one if one.device.type == "cpu" else next(parts).to(one.dtype).reshape(one.shape) for one in tensors]


def whole(values: object) -> Tensor:
    """[...] int64, on the CPU. Where a model has filled the caches, this takes half the time of torch's own way.

    Args:
        values: whole numbers, as nested lists.
    """
    return torch.from_numpy(np.array(values, np.int64))


def real(values: object, dtype: torch.dtype = torch.float64) -> Tensor:
    """[...] float, on the CPU, in that precision; made as `whole` makes its numbers.

    Args:
        values: numbers, as nested lists.
        dtype: float32 or float64.
    """
    return torch.from_numpy(np.array(values, np.float32 if dtype == torch.float32 else np.float64))


def to_device(values: object, device: torch.device) -> Tensor:
    """A tensor of numbers on a device, without waiting for what is going on there."""
    return torch.tensor(values).to(device, non_blocking=True)
