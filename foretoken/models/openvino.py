"""A converted model on a CPU through OpenVINO, behind the `LanguageModel` interface."""

from __future__ import annotations

import functools
from threading import Lock
from typing import Any

import numpy as np
import openvino as ov
import torch
from torch import Tensor
from torch.nn.functional import pad

from foretoken.errors import ModelError
from foretoken.models import threads
from foretoken.models.base import KVCache, ScoresOnly
from foretoken.models.openvino_graph import INSTEAD, facts_of
from foretoken.models.openvino_pages import page
from foretoken.models.openvino_weights import weight_bytes
from foretoken.models.paged import PagedCache, Reading, padded
from foretoken.types import Scores

# Tokens per forward of one row that have a graph of their own, of fixed size: nothing looks at shapes in it, which is a
# fifth of a small model's step, and another width than the last one's costs nothing.
FIXED = (1, 4, 8, 16)
COPIES = 1 << 30  # bytes: each of them holds the weights once more, so a model has only as many as fit in here
TYPES = {torch.float32: ov.Type.f32, torch.bfloat16: ov.Type.bf16}


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


class OpenVINOModel(ScoresOnly):
    """A graph of `openvino_graph.trace` behind the `LanguageModel` interface.

    In float32 everything is float32, keys and values too (OpenVINO's own default keeps those in 8 bits). It uses as
    many threads as torch does. Cost per forward: one inference of the graph; the cache is written in place.

    Args:
        graph: a graph with marks; it is changed.
        dtype: float32 or bfloat16, of arithmetic and of keys and values.
        max_length: longest sequence it can read, in tokens.
        vocab_size: as in `HFModel`.

    Attributes:
        dtype: as given.
        hidden_size: H.
        readable: tokens the input embedding has.
        num_parameters: number of weights.
        weight_bytes: bytes of weights.
        note: what the user should know about how it was loaded, or None.
    """

    backend = "openvino"
    note: str | None = None

    def __init__(self, graph: ov.Model, dtype: torch.dtype, max_length: int, vocab_size: int | None = None) -> None:
        self.dtype, self.max_length, self.device = dtype, max_length, torch.device("cpu")
        facts = facts_of(graph)
        self.readable, self.num_parameters = facts.readable, facts.num_parameters
        self._layers = facts.layers
        self.weight_bytes = weight_bytes(graph, dtype.itemsize)
        page(graph, TYPES[dtype])
        self._any = _Compiled(graph, dtype)
        copies = COPIES // max(self.weight_bytes, 1)
        self._fixed = {width: _Compiled(graph.clone(), dtype, width) for width in FIXED[:copies]}
        self._inputs: dict[tuple[int, int, tuple[int, int], bool], _Inputs] = {}
        self.hidden_size, width = (self._any.compiled.output(place).partial_shape[2].get_length() for place in (1, 0))
        self.vocab_size = vocab_size or width
        self._busy = Lock()  # a request holds inputs and outputs of one forward

    def new_cache(self, rows: int) -> PagedCache:
        """An empty cache of that many rows."""
        return PagedCache(self._layers, TYPES[self.dtype], rows)

    def width(self, tokens: int) -> int:
        """How many tokens a forward of so many really reads: 1, 4, 8, 16, ..."""
        return padded(tokens)

    def forward(self, tokens: Tensor, positions: Tensor, mask: Tensor, cache: KVCache, last: int = 0) -> Scores:
        """Read tokens, adding one pending entry per token (see `LanguageModel.forward`)."""
        assert isinstance(cache, PagedCache)
        rows, new = tokens.shape
        reading = cache.begin(tokens, positions, mask)
        end = reading.tokens.shape[1]
        begin = end - (last or new)
        with self._busy:
            fixed = self._fixed.get(reading.width) if rows == 1 and reading.tree is None else None
            # Padding is scored as well, so that there are few sizes.
            keep = (0, reading.width) if fixed else (begin, end if last else reading.width)
            found = (fixed or self._any).infer(self._given(reading, keep) | cache.tensors)
            logits, hidden = (torch.from_numpy(out).view(rows, keep[1] - keep[0], -1) for out in found)
        cache.end()
        if keep != (begin, end):
            logits, hidden = (part[:, begin - keep[0] : end - keep[0]] for part in (logits, hidden))
        if more := self.vocab_size - logits.shape[-1]:  # pads, or cuts
            logits = pad(logits, (0, more), value=-torch.inf)
        return Scores(logits, hidden)

    def _given(self, reading: Reading, keep: tuple[int, int]) -> dict[str, Any]:
        """Inputs by name, in the same place every time that the size is the same."""
        size = len(reading.tokens), reading.width, keep, reading.tree is not None
        if size not in self._inputs:
            if len(self._inputs) > 100:
                self._inputs.clear()
            self._inputs[size] = _Inputs(*size)
        inputs = self._inputs[size]
        inputs.write(reading)
        if self.vocab_size > self.readable:  # a draft may be shown a token that only its target has
            np.minimum(inputs.arrays["tokens"], self.readable - 1, out=inputs.arrays["tokens"])
        return inputs.tensors | {"blocks": reading.blocks, "block_begins": reading.block_begins}


class _Compiled:
    """A graph that is ready to run, and what it was given last.

    Args:
        graph: as `page` leaves it; is changed where a width is given.
        dtype: of arithmetic and of keys and values.
        width: tokens of the one row that it reads, or None for any number of both.

    Attributes:
        compiled: what OpenVINO made of it.
    """

    def __init__(self, graph: ov.Model, dtype: torch.dtype, width: int | None = None) -> None:
        if width is not None:
            inputs = _Inputs(1, width, (0, width), False)
            sizes = {name: array.shape for name, array in inputs.arrays.items()} | {"block_begins": (2,)}
            graph.reshape(
                {port: ov.PartialShape(sizes[name]) for port in graph.inputs for name in port.names if name in sizes}
            )
        self.compiled = core().compile_model(graph, "CPU", _settings(dtype))
        self._request = self.compiled.create_infer_request()
        # Names as in the graph: compiling may lose one. Tracing may give an input a second one.
        self._places = {name: place for place, port in enumerate(graph.inputs) for name in port.names}
        self._given: dict[str, Any] = {}  # OpenVINO does not keep the arrays alive

    def infer(self, inputs: dict[str, Any]) -> list[Any]:
        """Logits and hidden states, as arrays that the next forward does not write to. Only what has changed is set."""
        for name, tensor in inputs.items():
            if self._given.get(name) is not tensor:
                self._request.set_input_tensor(self._places[name], tensor)
                self._given[name] = tensor
        self._request.infer()
        return [self._request.get_output_tensor(place).data.copy() for place in (0, 1)]


class _Inputs:
    """Inputs of one size.

    Args:
        rows: B.
        width: N, tokens per row with padding.
        keep: which of a row's tokens are scored, from and to.
        tree: whether there is a mask.

    Attributes:
        arrays: what is written to.
        tensors: the same memory, as OpenVINO takes it.
    """

    def __init__(self, rows: int, width: int, keep: tuple[int, int], tree: bool) -> None:
        ends = np.arange(rows + 1, dtype=np.int32) * width
        self.arrays: dict[str, Any] = {
            "tokens": np.zeros((rows * width, 1), np.int64),
            "positions": np.zeros((rows * width, 1), np.int64),
            "past": np.zeros(rows, np.int32),
            "longest": np.zeros((), np.int32),
            "begins": ends,
            "keep": (ends[:-1, None] + np.arange(*keep)).astype(np.int64).reshape(-1),
            "tree": np.zeros(rows * width * width * tree, np.uint8),
            "tree_begins": ends * (width * tree),
        }
        self.tensors = {name: ov.Tensor(array, shared_memory=True) for name, array in self.arrays.items()}

    def write(self, reading: Reading) -> None:
        """Write what is different every time."""
        rows, real = reading.tokens.shape
        for name, values in (("tokens", reading.tokens), ("positions", reading.positions)):
            held = self.arrays[name].reshape(rows, -1)
            held[:, :real] = values
            if real < reading.width:
                held[:, real:] = values[:, -1:]
        self.arrays["past"][:] = reading.past
        self.arrays["longest"][...] = reading.longest
        if reading.tree is not None:
            self.arrays["tree"][:] = reading.tree.reshape(-1)


def _settings(dtype: torch.dtype) -> dict[str, Any]:
    """What the CPU plugin is told. The types of keys and values are those of the graph's inputs."""
    precision = TYPES[dtype].get_type_name()
    # What meets compressed weights would be rounded to 8 bits as well, which is much faster, and no float32.
    exact = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 0} if dtype == torch.float32 else {}
    return exact | {
        "INFERENCE_PRECISION_HINT": precision,
        "KV_CACHE_PRECISION": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads.available(),
    }
