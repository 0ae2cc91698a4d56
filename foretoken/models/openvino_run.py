"""Graphs that OpenVINO is ready to run, and what they are given."""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np
import openvino as ov
import torch

from foretoken.errors import ModelError
from foretoken.models import threads
from foretoken.models.openvino_graph import INSTEAD
from foretoken.models.paged import Reading

REACH = 512  # entries of a row that a graph is made ready for at least
TYPES = {torch.float32: ov.Type.f32, torch.bfloat16: ov.Type.bf16}


def memory() -> int:
    """Bytes of memory that this machine has; 8 GiB where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no such call
        return 8 << 30


@functools.cache
def core() -> Any:
    """OpenVINO, started once."""
    return ov.Core()


def check_dtype(dtype: torch.dtype) -> None:
    """Refuse what this machine would quietly compute in another precision.

    Raises:
        ModelError: OpenVINO does not compute in that dtype here.
    """
    capable = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if dtype not in TYPES or (dtype == torch.bfloat16 and "BF16" not in capable):
        name = str(dtype).removeprefix("torch.")
        raise ModelError(
            f"OpenVINO does not compute in {name} on this CPU", hint=f"use `--dtype float32`, or {INSTEAD}"
        )


class Compiled:
    """A graph that is ready to run, and what it was given last.

    Args:
        graph: as `page` or `drawing` leaves it; is changed where a size is given.
        dtype: of arithmetic and of keys and values.
        size: inputs of the one size that it takes, of one row; None takes any.
        cores: threads at most; none takes all there are.

    Attributes:
        compiled: what OpenVINO made of it.
    """

    def __init__(
        self, graph: ov.Model, dtype: torch.dtype, size: Inputs | None = None, cores: int | None = None
    ) -> None:
        if size is not None:
            sizes = {name: array.shape for name, array in size.arrays.items()} | {"block_begins": (2,)}
            graph.reshape(
                {port: ov.PartialShape(sizes[name]) for port in graph.inputs for name in port.names if name in sizes}
            )
        self.compiled = core().compile_model(graph, "CPU", _settings(dtype, cores))
        self._request = self.compiled.create_infer_request()
        # Names as in the graph: compiling may lose one. Tracing may give an input a second one.
        self._places = {name: place for place, port in enumerate(graph.inputs) for name in port.names}
        self._given: dict[str, Any] = {}  # OpenVINO does not keep the arrays alive
        self._cached: dict[str, Any] = {}
        self._inputs: Inputs | None = None
        self._outputs: list[Any] = []
        self._settled = size is not None
        self._reach = 0

    def infer(self, inputs: Inputs, cached: dict[str, Any]) -> list[Any]:
        """Run it.

        Args:
            inputs: what is read.
            cached: keys, values and the table of them, by name. While it is the same object, so is all in it.

        Returns:
            All outputs, as arrays that the next inference may write to.
        """
        if inputs is not self._inputs:
            self._set(inputs.tensors)
            self._inputs = inputs
        if cached is not self._cached:
            self._set(cached)
            self._cached = cached
        longest = inputs.arrays["longest"]
        if longest > self._reach:
            # OpenVINO makes its attention kernels anew, which takes 10 ms, for every 32 entries that a row is said to
            # be longer than any before. Being told of more entries than there are changes nothing else.
            said, self._reach = int(longest), max(REACH, 1 << int(longest).bit_length())
            longest[...] = self._reach
            self._request.infer(share_outputs=True)  # a copy of all outputs would be made, for nobody
            longest[...] = said
        else:
            self._request.infer(share_outputs=True)
        if not (self._settled and self._outputs):
            count = len(self.compiled.outputs)
            self._outputs = [self._request.get_output_tensor(place).data for place in range(count)]
        return self._outputs

    def _set(self, tensors: dict[str, Any]) -> None:
        for name, tensor in tensors.items():
            if self._given.get(name) is not tensor:
                self._request.set_input_tensor(self._places[name], tensor)
                self._given[name] = tensor


class Inputs:
    """Inputs of one size.

    Args:
        rows: B.
        width: N, tokens per row with padding.
        keep: which of a row's tokens are scored, from and to.
        tree: whether there is a mask.
        more: further inputs, by name.

    Attributes:
        arrays: what is written to.
        counters: those of them that count on from token to token, in one array: positions, `past` and `longest`.
        tensors: the same memory, as OpenVINO takes it.
    """

    def __init__(self, rows: int, width: int, keep: tuple[int, int], tree: bool, **more: Any) -> None:
        ends = np.arange(rows + 1, dtype=np.int32) * width
        self.counters = np.zeros(rows * width + rows + 1, np.int32)
        positions, past, longest = np.split(self.counters, [rows * width, rows * width + rows])
        self.arrays: dict[str, Any] = {
            "tokens": np.zeros((rows * width, 1), np.int32),
            "positions": positions[:, None],
            "past": past,
            "longest": longest.reshape(()),
            "begins": ends,
            "keep": (ends[:-1, None] + np.arange(*keep)).astype(np.int32).reshape(-1),
            "tree": np.zeros(rows * width * width * tree, np.uint8),
            "tree_begins": ends * (width * tree),
            **more,
        }
        self.tensors = {name: ov.Tensor(array, shared_memory=True) for name, array in self.arrays.items()}
        self._tokens, self._positions = (self.arrays[name].reshape(rows, width) for name in ("tokens", "positions"))
        self._following = np.arange(width, dtype=np.int32)

    def write(self, reading: Reading) -> None:
        """Write what is different every time."""
        for held, values in ((self._tokens, reading.tokens), (self._positions, reading.positions)):
            if values is None:
                for row, begin in zip(held, reading.past, strict=True):
                    np.add(self._following, begin, row)
            else:
                real = values.shape[1]
                held[:, :real], held[:, real:] = values, values[:, -1:]
        self.arrays["past"][:] = reading.past
        self.arrays["longest"][...] = reading.longest
        if reading.tree is not None:
            self.arrays["tree"][:] = reading.tree.reshape(-1)


def _settings(dtype: torch.dtype, cores: int | None) -> dict[str, Any]:
    """What the CPU plugin is told. The types of keys and values are those of the graph's inputs."""
    precision = TYPES[dtype].get_type_name()
    # What meets compressed weights would be rounded to 8 bits as well, which is much faster, and no float32.
    exact = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 0} if dtype == torch.float32 else {}
    return exact | {
        "INFERENCE_PRECISION_HINT": precision,
        "KV_CACHE_PRECISION": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": min(threads.available(), cores or threads.available()),
    }
