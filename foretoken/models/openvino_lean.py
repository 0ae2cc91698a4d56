"""Fewer operations in a graph: each costs microseconds, more than that where the caches are full of weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as op

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
    waves = [node for node in graph.get_ordered_ops() if node.get_type_name() in ("Cos", "Sin")]
    if not waves or any(_reads(wave) != {positions.get_friendly_name()} for wave in waves):
        return
    widths = [wave.output(0).partial_shape[-1] for wave in waves]
    if any(w.is_dynamic for w in widths) or sum(w.get_length() for w in widths) * max_length * 4 > TABLES:
        return
    results = [op.result(wave.output(0)) for wave in waves]
    part = ov.Model(results, [positions], "waves")
    request = core().compile_model(part.clone(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    found = request.infer([np.arange(max_length, dtype=np.int32)[:, None]])
    for place, (wave, result) in enumerate(zip(waves, results, strict=True)):
        table = op.constant(found[place].reshape(max_length, -1))
        row = op.gather(table, positions, op.constant(np.int32(0)))
        for port in wave.output(0).get_target_inputs():
            if port.get_node().get_friendly_name() != result.get_friendly_name():
                port.replace_source_output(row.output(0))
    graph.validate_nodes_and_infer_types()


def _reads(node: Any) -> set[str]:
    """Names of the inputs that a node depends on."""
    found, seen, ahead = set(), set(), [node]
    while ahead:
        one = ahead.pop()
        if one.get_friendly_name() not in seen:
            seen.add(one.get_friendly_name())
            ahead += [port.get_node() for port in one.input_values()]
            if one.get_type_name() == "Parameter":
                found.add(one.get_friendly_name())
    return found
