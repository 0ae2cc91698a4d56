"""A `transformers` model as an OpenVINO graph with paged attention.

The model's own code is traced once, without cache and mask: every attention becomes a mark in the graph, which can be
stored as an ordinary OpenVINO file. `openvino_pages.page` then puts OpenVINO's paged attention where the marks are.
"""

from __future__ import annotations

import json
import warnings
from typing import Any, NamedTuple

import numpy as np
import openvino as ov
import torch
from openvino import opset13 as op
from openvino.frontend.pytorch import ConversionExtension
from torch import Tensor, nn
from transformers import AttentionInterface, DynamicCache, PreTrainedModel

from foretoken.errors import ModelError

MARKED = "foretoken_marked"
FACTS = ["foretoken", "facts"]
INSTEAD = "use `--backend torch`"


class Layer(NamedTuple):
    """What one layer keeps."""

    number: int
    heads: int
    key_dim: int
    value_dim: int
    scale: float  # of attention scores


class Facts(NamedTuple):
    """What a graph does not say about the model it came from.

    Attributes:
        readable: tokens the input embedding has.
        num_parameters: weights, shared ones once.
    """

    layers: list[Layer]
    readable: int
    num_parameters: int


@torch.library.custom_op("foretoken::attention", mutates_args=())
def _mark(query: Tensor, key: Tensor, value: Tensor, layer: int, width: int) -> Tensor:
    """Stands for attention while the model is traced; only its shape is real.

    Args:
        query: [T, heads*dim] float.
        key: [T, key_heads*dim] float.
        value: [T, key_heads*value_dim] float.
        layer: number of the layer.
        width: heads*value_dim.
    """
    return query.new_zeros(query.shape[0], width)


class _Marking:
    """Attention, as `transformers` calls it, that leaves marks and notes what each layer keeps."""

    def __init__(self, max_length: int) -> None:
        self._max_length = max_length
        self.layers: dict[int, Layer] = {}

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        sliding_window: int | None = None,
        softcap: float | None = None,
        s_aux: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        given = {
            "sliding windows": sliding_window is not None and sliding_window < self._max_length,
            "capped attention scores": softcap is not None,
            "attention sinks": s_aux is not None,
            "attention masks of their own": attention_mask is not None,
        }
        if any(given.values()):
            what = next(what for what, there in given.items() if there)
            raise ModelError(f"models with {what} do not run on OpenVINO yet", hint=INSTEAD)
        heads, key_heads, dim, value_dim = (int(n) for n in (*query.shape[1:2], *key.shape[1::2], value.shape[3]))
        number = int(module.layer_idx)  # type: ignore[arg-type]
        self.layers[number] = Layer(number, key_heads, dim, value_dim, float(scaling or dim**-0.5))
        out = _mark(*(part.flatten(1) for part in (query, key, value)), number, heads * value_dim)
        return out.unflatten(1, (heads, value_dim))[:, None], None


class _Body(nn.Module):
    """Tokens and positions in, scores of some of them out."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, positions: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Read a flat batch, as so many sequences of one token: then no transposition moves anything.

        Args:
            tokens: [T, 1] int64.
            positions: [T, 1] int64.
            keep: [K] int64. Which tokens to score.

        Returns:
            [K, 1, V] float. Logits.
            [K, 1, H] float. Last hidden states, as the output embedding reads them.
        """
        heard: list[Tensor] = []
        head = self.model.get_output_embeddings()

        def choose(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
            heard.append(args[0][keep])
            return (heard[-1],)

        hook = head.register_forward_pre_hook(choose)
        try:
            out = self.model(input_ids=tokens, position_ids=positions, use_cache=False)
        finally:
            hook.remove()
        return out.logits, heard[-1]


def trace(model: PreTrainedModel, max_length: int) -> ov.Model:
    """Convert a model (in float32) into a graph with marks; its attention implementation is replaced for good.

    Raises:
        ModelError: the model does something that paged attention cannot do.
    """
    check_config(model.config, max_length)
    marking, marks = _Marking(max_length), {}

    def leave(node: Any) -> list[Any]:
        query, key, value = (node.get_input(place) for place in range(3))
        width = [node.get_values_from_const_input(4)]
        # Depends on all three and has the right shape, which is all that is asked of it.
        joined = op.concat([query, key, value], -1)
        mark = op.slice(joined, np.array([0]), np.array(width), np.array([1]), np.array([1]))
        marks[node.get_values_from_const_input(3)] = mark
        return [mark.output(0)]

    AttentionInterface.register(MARKED, marking)
    model.set_attn_implementation(MARKED)
    example = torch.arange(5)[:, None], torch.arange(5)[:, None], torch.tensor([3, 4])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a tracer says about shapes that we know to be fixed
        graph = ov.convert_model(
            _Body(model.eval()),
            example_input=example,
            input=[ov.PartialShape(shape) for shape in ([-1, 1], [-1, 1], [-1])],
            extension=[ConversionExtension("foretoken::attention", leave)],
        )
    for number, mark in marks.items():
        mark.set_friendly_name(f"attention.{number}")
    facts = Facts(
        list(marking.layers.values()),
        int(model.get_input_embeddings().weight.shape[0]),
        sum(weight.numel() for weight in model.parameters()),
    )
    graph.set_rt_info(json.dumps(facts), FACTS)
    return graph


def check_config(config: Any, max_length: int) -> None:
    """Refuse what a trace of a few tokens would silently freeze, from the configuration alone.

    Raises:
        ModelError: with the first reason.
    """
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    kinds = {part.get("rope_type") for part in (rope, *rope.values()) if isinstance(part, dict)}
    windows = [getattr(layer, "sliding_window", None) for layer in DynamicCache(config=config).layers]
    why = None
    if kinds & {"dynamic", "longrope"}:
        why = "rotary embeddings that change with the length"
    elif any(window and window < max_length for window in windows):
        why = "sliding windows"
    elif getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None):
        why = "experts"  # which ones run is decided in Python
    if why:
        raise ModelError(f"models with {why} do not run on OpenVINO yet", hint=INSTEAD)


def facts_of(graph: ov.Model) -> Facts:
    """What `trace` wrote into a graph."""
    layers, *rest = json.loads(graph.get_rt_info(FACTS).astype(str))
    return Facts([Layer(*layer) for layer in layers], *rest)


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
    held = op.constant(rows.float().cpu().numpy())
    look_up.input(0).replace_source_output(op.concat([table, held], 0).output(0))
