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
from foretoken.models.base import KVCache
from foretoken.models.openvino_graph import INSTEAD, facts_of
from foretoken.models.openvino_pages import page
from foretoken.models.openvino_weights import weight_bytes
from foretoken.models.paged import PagedCache, Reading, padded
from foretoken.types import Scores

SMALL = 8 << 20  # parameters of a model whose forwards cost their overhead, not the reading of weights
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


class OpenVINOModel:
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
        compiled = core().compile_model(graph, "CPU", _settings(dtype))
        self.hidden_size = compiled.output(1).partial_shape[2].get_length()
        self.vocab_size = vocab_size or compiled.output(0).partial_shape[2].get_length()
        self._request = compiled.create_infer_request()
        # Names as in the graph: compiling may lose one. Tracing may give an input a second one.
        self._places = {name: place for place, port in enumerate(graph.inputs) for name in port.names}
        self._inputs: dict[tuple[int, int, tuple[int, int], bool], _Inputs] = {}
        self._given: dict[str, Any] = {}  # OpenVINO does not keep the arrays alive
        self._busy = Lock()  # the request holds inputs and outputs of one forward

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
        if new == 2 and self.num_parameters < SMALL:
            # A draft reads one token at a time, but for the two after a step that was accepted as a whole. Another
            # width, for once, would cost as much as three forwards.
            seen = cache.pending + 1
            one = self.forward(tokens[:, :1], positions[:, :1], mask[:, :1, :seen], cache)
            two = self.forward(tokens[:, 1:], positions[:, 1:], mask[:, 1:], cache)
            if last == 1:
                return two
            hidden = torch.cat([read.hidden for read in (one, two) if read.hidden is not None], 1)
            return Scores(torch.cat([one.logits, two.logits], 1), hidden)
        reading = cache.begin(tokens, positions, mask)
        real = reading.tokens.shape[1]
        # Padding is scored as well, so that there are few sizes here, too.
        keep = (real - last, real) if last else (real - new, reading.width)
        with self._busy:
            self._give(reading, keep, cache)
            self._request.infer()
            # Copies: the next forward writes to the same place.
            logits, hidden = (
                torch.from_numpy(self._request.get_output_tensor(place).data.copy()).view(rows, keep[1] - keep[0], -1)
                for place in (0, 1)
            )
        cache.end()
        if reading.width != real:
            logits, hidden = logits[:, : last or new], hidden[:, : last or new]
        if logits.shape[-1] > self.vocab_size:
            logits = logits[..., : self.vocab_size]
        elif logits.shape[-1] < self.vocab_size:
            logits = pad(logits, (0, self.vocab_size - logits.shape[-1]), value=-torch.inf)
        return Scores(logits, hidden)

    def _give(self, reading: Reading, keep: tuple[int, int], cache: PagedCache) -> None:
        """Hand the inputs over: in place where the size is that of the last forward, and only what has changed."""
        size = len(reading.tokens), reading.width, keep, reading.tree is not None
        if size not in self._inputs:
            if len(self._inputs) > 100:
                self._inputs.clear()
            self._inputs[size] = _Inputs(*size)
        inputs = self._inputs[size]
        inputs.write(reading)
        if self.vocab_size > self.readable:  # a draft may be shown a token that only its target has
            np.minimum(inputs.arrays["tokens"], self.readable - 1, out=inputs.arrays["tokens"])
        tables = {"blocks": reading.blocks, "block_begins": reading.block_begins}
        for name, tensor in (inputs.tensors | tables | cache.tensors).items():
            if self._given.get(name) is not tensor:
                self._request.set_input_tensor(self._places[name], tensor)
                self._given[name] = tensor


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
