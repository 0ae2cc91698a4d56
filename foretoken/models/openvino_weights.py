"""Weights in 8 or 4 bits, which OpenVINO unpacks inside its matrix products: less to read per token."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import openvino as ov
import torch
from openvino import opset13 as op
from torch import nn
from transformers import PreTrainedModel

from foretoken.config import BITS
from foretoken.errors import ModelError
from foretoken.models.rounding import Packed, quantize

SHORT = (ov.Type.bf16, ov.Type.f16)
KEPT = "decompression_0"  # what tells OpenVINO that lengthening a constant is better left to what reads it


@torch.no_grad()
def round_weights(model: PreTrainedModel, quantization: str) -> dict[str, Packed]:
    """Round the matrices of a model in place, so that it says itself what its compressed conversion must say.

    All linear layers are rounded; the output embedding, and with it a tied input embedding, gets 8 bits in any case,
    since errors there reach the logits directly.

    Args:
        model: in float32.
        quantization: "int8" or "int4".

    Returns:
        What was made of each matrix, by its name in the model.

    Raises:
        ModelError: the model has no linear layers to speak of.
    """
    head = model.get_output_embeddings()
    linear = {id(part.weight) for part in model.modules() if isinstance(part, nn.Linear) and part is not head}
    if not linear:
        raise ModelError(
            f"the weights of `{model.config.model_type}` models cannot be compressed yet",
            hint="use them as they are",
        )
    packed = {}
    for name, weight in model.named_parameters():
        if id(weight) in linear or weight is head.weight:
            packed[name] = quantize(weight.data, 8 if weight is head.weight else BITS[quantization])
            weight.data.copy_(torch.from_numpy(packed[name].unpacked()))
    return packed


def pack(graph: ov.Model, packed: dict[str, Packed]) -> None:
    """Put packed matrices where their rounded ones are, in the form that OpenVINO fuses into what reads them."""
    for node in graph.get_ordered_ops():
        matrix = packed.get(node.get_friendly_name().removeprefix("self.model."))
        if node.get_type_name() != "Constant" or matrix is None:
            continue
        codes, zeros, scales, bits = matrix
        if codes.shape[1] == 1:  # a scale per row needs no groups
            codes, zeros, scales = codes[:, 0], zeros[:, 0], scales[:, 0]
        levels = op.subtract(*(op.convert(_constant(part, bits), "f32") for part in (codes, zeros)))
        entries = op.multiply(levels, op.constant(scales))
        if codes.ndim == 3:
            entries = op.reshape(entries, np.array(node.shape), False)
        node.output(0).replace(entries.output(0))


def join(graph: ov.Model) -> None:
    """Multiply once where several matrices multiply the same: queries, keys and values, gate and up.

    A product of a few tokens costs microseconds besides what it reads, and every entry stays the same dot product.
    """
    alike: dict[tuple[str, int, bool], list[Any]] = {}
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "MatMul" and node.input_value(1).get_node().get_type_name() == "Constant":
            how = node.get_attributes()
            if not how["transpose_a"]:
                source = node.input_value(0)
                key = source.get_node().get_friendly_name(), source.get_index(), how["transpose_b"]
                alike.setdefault(key, []).append(node)
    for (*_, transposed), nodes in alike.items():
        if len(nodes) > 1:
            matrices = [node.input_value(1).get_node().data for node in nodes]
            axis = 0 if transposed else 1
            whole = op.constant(np.concatenate(matrices, axis))
            product = op.matmul(nodes[0].input_value(0), whole, False, transposed)
            parts = op.variadic_split(product, np.int64(-1), np.array([each.shape[axis] for each in matrices]))
            for place, node in enumerate(nodes):
                node.output(0).replace(parts.output(place))
    graph.validate_nodes_and_infer_types()


def weight_bytes(graph: ov.Model, itemsize: int) -> int:
    """Bytes of all matrices as they are read: packed and short ones as they are, others in the type of arithmetic."""
    matrices = [n for n in graph.get_ordered_ops() if n.get_type_name() == "Constant" and len(n.shape) > 1]
    kept = (ov.Type.u8, ov.Type.u4, *SHORT)
    return sum(n.get_byte_size() if n.get_element_type() in kept else prod(n.shape) * itemsize for n in matrices)


def shorten(graph: ov.Model) -> None:
    """Store weights that 16 bits can hold exactly as such, which halves the file; arithmetic does not change."""
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() != ov.Type.f32 or len(node.shape) < 2:
            continue
        if (short := _short(node.data)) is not None:
            held = ov.op.Constant(short)
            held.set_friendly_name(node.get_friendly_name())
            node.output(0).replace(op.convert(held, "f32").output(0))


def _short(entries: Any) -> ov.Tensor | None:
    """float32 array as a tensor of bfloat16 or float16, or None if neither holds it exactly."""
    bits = entries.view(np.uint32)
    if not (bits & 0xFFFF).any():
        short = ov.Tensor(ov.Type.bf16, ov.Shape(bits.shape))
        short.data[:] = (bits >> 16).astype(np.uint16).view(np.float16)  # numpy has no bfloat16; bits are bits
        return short
    with np.errstate(over="ignore"):
        halves = entries.astype(np.float16)
    return ov.Tensor(halves) if (halves == entries).all() else None


def keep_short(graph: ov.Model) -> None:
    """Let float32 arithmetic read weights of 16 bits as they are stored, and lengthen them in the processor.

    Left to itself, OpenVINO makes float32 of them while it compiles: twice the bytes to hold and, in every step, to
    read. All that it multiplies is the same number.
    """
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "Convert" and node.input_value(0).get_element_type() in SHORT:
            held = node.input_value(0).get_node()
            readers = {port.get_node().get_type_name() for port in node.output(0).get_target_inputs()}
            # Other readers would have it lengthened in every step.
            if held.get_type_name() == "Constant" and readers <= {"MatMul", "Gather"}:
                node.get_rt_info()[KEPT] = ""


def _constant(values: Any, bits: int) -> Any:
    """uint8 array as a constant of 8 or 4 bits."""
    if bits == 8:
        return op.constant(values)
    flat = values.reshape(-1)
    if len(flat) % 2:
        flat = np.append(flat, np.uint8(0))
    tensor = ov.Tensor(ov.Type.u4, ov.Shape(values.shape))
    tensor.data.reshape(-1)[:] = flat[0::2] | flat[1::2] << 4
    return ov.op.Constant(tensor)
