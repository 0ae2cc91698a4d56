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
from foretoken.models.openvino_graph import INSTEAD, facts_of, page
from foretoken.models.paged import PagedCache, Reading
from foretoken.types import Scores

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
        note: what the user should know about how it was loaded, or None.
    """

    backend = "openvino"
    note: str | None = None

    def __init__(self, graph: ov.Model, dtype: torch.dtype, max_length: int, vocab_size: int | None = None) -> None:
        self.dtype, self.max_length, self.device = dtype, max_length, torch.device("cpu")
        facts = facts_of(graph)
        self.readable, self.num_parameters = facts.readable, facts.num_parameters
        self._layers = facts.layers
        page(graph, TYPES[dtype])
        compiled = core().compile_model(graph, "CPU", _settings(dtype))
        self.hidden_size = compiled.output(1).partial_shape[2].get_length()
        self.vocab_size = vocab_size or compiled.output(0).partial_shape[2].get_length()
        self._request = compiled.create_infer_request()
        self._inputs = {port.any_name: place for place, port in enumerate(compiled.inputs)}
        self._sizes: dict[tuple[int, int, tuple[int, int]], dict[str, Any]] = {}
        self._given: dict[str, Any] = {}
        self._busy = Lock()  # the request holds inputs and outputs of one forward

    def new_cache(self, rows: int) -> PagedCache:
        """An empty cache of that many rows."""
        return PagedCache(self._layers, TYPES[self.dtype], rows)

    def forward(self, tokens: Tensor, positions: Tensor, mask: Tensor, cache: KVCache, last: int = 0) -> Scores:
        """Read tokens, adding one pending entry per token (see `LanguageModel.forward`)."""
        assert isinstance(cache, PagedCache)
        rows, new = tokens.shape
        reading = cache.begin(tokens, positions, mask)
        # Padding is scored as well, so that there are few sizes here, too.
        keep = (reading.real - last, reading.real) if last else (reading.real - new, reading.tokens.shape[1])
        with self._busy:
            self._give(reading, keep, cache)
            self._request.infer()
            # Copies: the next forward writes to the same place.
            logits, hidden = (
                torch.from_numpy(self._request.get_output_tensor(place).data.copy()).view(rows, keep[1] - keep[0], -1)
                for place in (0, 1)
            )
        cache.end()
        logits, hidden = logits[:, : last or new], hidden[:, : last or new]
        if logits.shape[-1] > self.vocab_size:
            logits = logits[..., : self.vocab_size]
        elif logits.shape[-1] < self.vocab_size:
            logits = pad(logits, (0, self.vocab_size - logits.shape[-1]), value=-torch.inf)
        return Scores(logits, hidden)

    def _give(self, reading: Reading, keep: tuple[int, int], cache: PagedCache) -> None:
        """Hand the inputs over; what has not changed since the last forward stays."""
        tokens = reading.tokens
        if self.vocab_size > self.readable:  # a draft may be shown a token that only its target has
            tokens = tokens.clamp_max(self.readable - 1)
        rows, width = tokens.shape
        given = {
            "tokens": _flat(tokens),
            "positions": _flat(reading.positions),
            "past": reading.past,
            "blocks": reading.blocks,
            "block_begins": reading.block_begins,
            "longest": np.array(reading.longest, np.int32),
            **self._sized(rows, width, keep),
        }
        if reading.tree is not None:
            given["tree"] = reading.tree.astype(np.uint8).reshape(-1)
            given["tree_begins"] = np.arange(rows + 1, dtype=np.int32) * (width * width)
        for name, value in given.items():
            if self._given.get(name) is not value:
                self._request.set_input_tensor(self._inputs[name], ov.Tensor(value, shared_memory=True))
        for name, value in cache.tensors.items():
            if self._given.get(name) is not value:
                self._request.set_input_tensor(self._inputs[name], value)
        self._given = given | cache.tensors  # OpenVINO does not keep the arrays alive

    def _sized(self, rows: int, width: int, keep: tuple[int, int]) -> dict[str, Any]:
        """Inputs that only depend on how much is read."""
        if (size := (rows, width, keep)) not in self._sizes:
            if len(self._sizes) > 1000:
                self._sizes.clear()
            ends = np.arange(rows + 1, dtype=np.int32) * width
            self._sizes[size] = {
                "begins": ends,
                "keep": (ends[:-1, None] + np.arange(*keep)).astype(np.int64).reshape(-1),
                "tree": np.zeros(0, np.uint8),
                "tree_begins": np.zeros(rows + 1, np.int32),
            }
        return self._sizes[size]


def append_tokens(graph: ov.Model, rows: Tensor) -> None:
    """Give the input embedding more rows; where the output embedding shares its weights, that one stays as it is.

    Args:
        graph: is changed.
        rows: [E, H] float. What tokens beyond the present ones are read as.

    Raises:
        ModelError: the graph does not look tokens up in a table.
    """
    (tokens,) = (node for node in graph.get_parameters() if node.get_friendly_name() == "tokens")
    readers = [port.get_node() for port in tokens.output(0).get_target_inputs()]
    readers += [port.get_node() for node in readers for port in node.output(0).get_target_inputs()]
    look_up = next((node for node in readers if node.get_type_name() == "Gather"), None)
    if look_up is None:
        raise ModelError("this model cannot be given more tokens on OpenVINO", hint=INSTEAD)
    table = look_up.input_value(0)
    held = ov.opset13.constant(rows.float().cpu().numpy())
    look_up.input(0).replace_source_output(ov.opset13.concat([table, held], 0).output(0))


def _flat(values: Tensor) -> Any:
    """[1, B*N] int64 array."""
    return np.ascontiguousarray(values.numpy()).reshape(1, -1)


def _settings(dtype: torch.dtype) -> dict[str, Any]:
    """What the CPU plugin is told. The types of keys and values are those of the graph's inputs."""
    precision = TYPES[dtype].get_type_name()
    return {
        "INFERENCE_PRECISION_HINT": precision,
        "KV_CACHE_PRECISION": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads.available(),
    }
