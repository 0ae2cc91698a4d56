"""Paged attention where `openvino_graph.trace` left marks.

That operation reads and writes keys and values in blocks that we own, so a rollback is a smaller number, and it takes a
tree mask.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as op
from openvino.op import _PagedAttentionExtension as PagedAttention

from foretoken.models.openvino_graph import facts_of

BLOCK = 32  # entries per block; the CPU plugin knows no other size
# Inputs of the paged graph that all layers share, with their shapes.
SHARED = {
    "past": [-1],  # [B] entries each row has
    "begins": [-1],  # [B+1] where each row's tokens begin
    "blocks": [-1],  # the rows' blocks, one row after the other
    "block_begins": [-1],  # [B+1] where each row's blocks begin
    "longest": [],
    "tree": [-1],  # the rows' [N, N] masks, one after the other, or nothing for causal attention
    "tree_begins": [-1],  # [B+1]
}


def page(graph: ov.Model, dtype: ov.Type) -> None:
    """Replace the marks by paged attention over caches of that type, as inputs `key.N` and `value.N`."""
    nodes = {node.get_friendly_name(): node for node in graph.get_ordered_ops()}
    shared = {
        name: parameter(name, shape, ov.Type.u8 if name == "tree" else ov.Type.i32) for name, shape in SHARED.items()
    }
    added = list(shared.values())
    for number, heads, key_dim, value_dim, scale in facts_of(graph).layers:
        key = parameter(f"key.{number}", [-1, heads, BLOCK, key_dim], dtype)
        value = parameter(f"value.{number}", [-1, heads, BLOCK, value_dim], dtype)
        added += [key, value]
        mark = nodes[f"attention.{number}"]
        inputs = [*mark.input_value(0).get_node().input_values(), key.output(0), value.output(0)]
        inputs += [shared[name].output(0) for name in ("past", "begins", "blocks", "block_begins")]
        inputs += [constant(np.float32(scale)), constant(np.int32(0)), constant(np.zeros(0, np.float32))]
        inputs += [shared["longest"].output(0), *_unused()]
        inputs += [shared["tree"].output(0), shared["tree_begins"].output(0)]
        attention = PagedAttention(inputs)
        info = attention.get_rt_info()
        info["num_k_heads"] = info["num_v_heads"] = heads
        info["k_head_size"], info["v_head_size"] = key_dim, value_dim
        mark.output(0).replace(attention.output(0))
    if dtype != ov.Type.f32:
        _settle_precision(graph)
    graph.add_parameters(added)
    graph.validate_nodes_and_infer_types()


def _settle_precision(graph: ov.Model) -> None:
    """Let the plugin compute residuals in its short type.

    It keeps what leads to an output without a matrix product in float32: for hidden states that is every residual, with
    conversions to and fro in each layer. So they leave through a product with the identity, of eight by eight.
    """
    result = graph.get_results()[1]
    hidden = result.input_value(0)
    small, whole = np.array([0, -1, 8]), np.array([0, 1, hidden.partial_shape[2].get_length()])
    parts = op.reshape(hidden, constant(small), True)
    same = op.matmul(parts, constant(np.eye(8, dtype=np.float32)), False, False)
    result.input(0).replace_source_output(op.reshape(same, constant(whole), True).output(0))


def _unused() -> list[Any]:
    """Inputs that we have no use for: scores, rotation, sparsity, sinks, eviction, token types."""
    none, nothing, zero = np.zeros(0, np.int32), np.zeros(0, np.float32), np.int32(0)
    given = [none, none, none, nothing, nothing, np.int32(64), np.int32(8), nothing, zero, none, none, none, none]
    return [constant(value) for value in given]


def constant(value: Any) -> Any:
    """A value in a graph."""
    return op.constant(value).output(0)


def parameter(name: str, shape: list[int], dtype: ov.Type) -> Any:
    """An input of a graph, known by its name."""
    made = op.parameter(shape, dtype, name=name)
    made.output(0).get_tensor().set_names({name})
    return made
