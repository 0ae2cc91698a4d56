"""A product with weights of one byte on a GPU; PyTorch's own takes 6 to 50 times as long as one with full weights."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = (16, 32, 64)  # of the input at once: the fewest that tensor cores take, and no more than are needed
OUTPUTS, DEPTH = 32, 256  # what one program multiplies at once: its weights are a stream of 8 KB each
STAGES = 3  # of which so many are on their way


def multiply(given: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    """Multiply, unpacking weights on the way, so that each is read once per 64 rows, as one byte.

    Args:
        given: [M, in] float, contiguous.
        codes: [out, in] int8 or float8, contiguous.
        scales: [out] float. Of each row of codes.

    Returns:
        [M, out] float, of the type of `given`; sums are float32.
    """
    rows, depth = given.shape
    out = torch.empty(rows, len(codes), dtype=given.dtype, device=given.device)
    held = next((size for size in ROWS if size >= rows), ROWS[-1])
    grid = (triton.cdiv(len(codes), OUTPUTS), triton.cdiv(rows, held))
    _multiply[grid](given, codes, scales, out, rows, len(codes), depth, held, OUTPUTS, DEPTH, num_stages=STAGES)
    return out


# Nothing but constants is annotated: the compiler takes other names for global variables, which it refuses.
@triton.jit  # type: ignore[untyped-decorator]
def _multiply(  # type: ignore[no-untyped-def]
    given,
    codes,
    scales,
    out,
    num_rows,
    num_outputs,
    depth,
    ROWS: tl.constexpr,  # noqa: N803
    OUTPUTS: tl.constexpr,  # noqa: N803
    DEPTH: tl.constexpr,  # noqa: N803
):
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    output = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    sums = tl.zeros((ROWS, OUTPUTS), dtype=tl.float32)
    for start in range(0, depth, DEPTH):
        at = start + tl.arange(0, DEPTH)
        here = row.to(tl.int64)[:, None] * depth + at[None, :]
        values = tl.load(given + here, mask=(row < num_rows)[:, None] & (at < depth)[None, :], other=0.0)
        there = output.to(tl.int64)[None, :] * depth + at[:, None]
        weights = tl.load(codes + there, mask=(output < num_outputs)[None, :] & (at < depth)[:, None], other=0.0)
        sums = tl.dot(values, weights.to(values.dtype), sums, input_precision="ieee")
    sums *= tl.load(scales + output, mask=output < num_outputs, other=0.0).to(tl.float32)[None, :]
    place = row.to(tl.int64)[:, None] * num_outputs + output[None, :]
    used = (row < num_rows)[:, None] & (output < num_outputs)[None, :]
    tl.store(out + place, sums.to(out.dtype.element_ty), mask=used)
