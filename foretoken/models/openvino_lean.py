"""Fewer operations in a graph: each costs microseconds, more than that where the caches are full of weights."""

from __future__ import annotations

import numpy as np
import openvino as ov
from openvino import opset13 as op

from foretoken.models.openvino_pages import constant
from foretoken.models.openvino_run import core

TABLES = 16 << 20  # bytes that tables may take


def shorten_inputs(graph: ov.Model) -> None:
    """Take tokens, positions and places as int32, which OpenVINO makes of int64 before it does anything."""
    for node in graph.get_parameters():
        if node.get_element_type() == ov.Type.i64:
            name = node.get_friendly_name()
            short = op.parameter(node.get_partial_shape(), ov.Type.i32, name=name)
            short.output(0).get_tensor().set_names({name})
            node.output(0).replace(op.convert(short, "i64").output(0))
            graph.remove_parameter(node)
            graph.add_parameters([short])


def tabulate(graph: ov.Model, max_length: int) -> None:
    """Look sines and cosines of positions up, instead of computing them in every forward.

    Args:
        graph: with short inputs.
        max_length: positions are below it.
    """
    (positions,) = (node for node in graph.get_parameters() if node.get_friendly_name() == "positions")
    waves = [node.output(0) for node in graph.get_ordered_ops() if node.get_type_name() in ("Cos", "Sin")]
    widths = [wave.partial_shape[-1] for wave in waves]
    if not waves or any(width.is_dynamic for width in widths):
        return
    if sum(width.get_length() for width in widths) * max_length * np.float32().itemsize > TABLES:
        return
    results = [op.result(wave) for wave in waves]
    try:
        part = ov.Model(results, [positions], "waves")
    except RuntimeError:  # they depend on something else
        return
    request = core().compile_model(part, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    found = request.infer([np.arange(max_length, dtype=np.int32)[:, None]])
    for place, wave in enumerate(waves):
        table = constant(found[place].reshape(max_length, -1))
        row = op.gather(table, positions, constant(np.int32(0))).output(0)
        for port in wave.get_target_inputs():
            if port.get_node().get_type_name() != "Result":
                port.replace_source_output(row)
    graph.validate_nodes_and_infer_types()
