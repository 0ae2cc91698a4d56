"""Matrices in 8 or 4 bits, whoever multiplies them."""

from __future__ import annotations

from math import gcd
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

GROUP = 64  # 4-bit weights that share a scale; a smaller divisor of the row where this is none
SMALLEST = 16  # below that, scales cost what the bits save, and the matrix gets 8 bits


class Packed(NamedTuple):
    """A matrix whose entries are (codes - zeros) * scales.

    Attributes:
        codes: [out, groups, size] uint8 array.
        zeros: [out, groups, 1] uint8 array. The code of zero.
        scales: [out, groups, 1] float32 array.
        bits: 8 or 4.
    """

    codes: Any
    zeros: Any
    scales: Any
    bits: int

    def unpacked(self) -> Any:
        """[out, in] float32 array."""
        entries = (self.codes.astype(np.float32) - self.zeros.astype(np.float32)) * self.scales
        return entries.reshape(len(entries), -1)


def quantize(weight: Tensor, bits: int) -> Packed:
    """Round a matrix to evenly spaced levels from the least to the greatest entry of each row (8 bits) or group (4).

    Args:
        weight: [out, in] float32.
        bits: 8 or 4.
    """
    rows, width = weight.shape
    size = gcd(width, GROUP) if bits == 4 else width
    if size < SMALLEST:
        bits, size = 8, width
    groups = weight.numpy().reshape(rows, width // size, size)
    # Zero is always among the levels, or a row of equal entries would have none.
    least, most = (np.minimum(groups.min(-1, keepdims=True), 0), np.maximum(groups.max(-1, keepdims=True), 0))
    top = np.float32(2**bits - 1)
    scales = (most - least) / top
    scales[scales == 0] = 1
    zeros = np.clip(np.rint(-least / scales), 0, top)
    codes = np.clip(np.rint(groups / scales) + zeros, 0, top)
    return Packed(codes.astype(np.uint8), zeros.astype(np.uint8), scales, bits)
