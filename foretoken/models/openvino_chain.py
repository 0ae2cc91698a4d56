"""A paged graph that also draws: its next inputs follow from its outputs, so that nothing of ours runs in between.

Drawing several tokens in one larger graph would save the calls, but every operation of such a graph finds the caches
full of the target's weights, while a small one that runs again finds itself there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
import torch
from openvino import opset13 as op
from torch import Tensor

from foretoken.models.openvino_pages import constant, parameter
from foretoken.models.openvino_run import Compiled, Inputs
from foretoken.models.openvino_weights import weight_bytes
from foretoken.models.paged import Reading
from foretoken.types import Continuation

START = 2  # tokens that it reads: the newest one, and the one before it, which may be new as well
MORE = ("uniform", "coldness")  # inputs beside those of a forward
PER_CORE = 8 << 20  # bytes of weights that are worth a thread: several of them wait for each other at every operation
COLD = np.float32(1e30)  # one over the temperature at which only the likeliest token has a probability


class Drawing:
    """A graph that reads two tokens of a row and draws the next one, again and again.

    Args:
        graph: as `page` leaves it.
        dtype: of arithmetic and of keys and values.
        vocab_size: a token drawn is below it.
    """

    def __init__(self, graph: ov.Model, dtype: torch.dtype, vocab_size: int) -> None:
        more = {name: np.zeros(1, np.float32) for name in MORE}
        self._inputs = Inputs(1, START, (START - 1, START), False, **more)
        cores = max(weight_bytes(graph, dtype.itemsize) // PER_CORE, 1)
        self._compiled = Compiled(drawing(graph.clone(), vocab_size), dtype, self._inputs, cores)

    def run(self, reading: Reading, count: int, temperature: float, uniforms: Any) -> Continuation:
        """Draw tokens, and read all of them but the last.

        Args:
            reading: of the two tokens, with room for what is drawn.
            count: K, tokens to draw.
            temperature: 0 takes the likeliest token each time.
            uniforms: [K] float64 or None, an array; None at temperature 0.
        """
        self._inputs.write(reading)
        arrays = self._inputs.arrays
        arrays["coldness"][0] = 1 / temperature if temperature else COLD
        held: list[Any] = []
        for place, number in enumerate(np.zeros(count, np.float32) if uniforms is None else below(uniforms)):
            arrays["uniform"][0] = number
            found = self._compiled.infer(self._inputs, reading.cached)[: 5 if temperature else 4]
            held = held or [np.empty((1, count, out.shape[1]), out.dtype) for out in found]
            for all_of_it, out in zip(held, found, strict=True):
                all_of_it[0, place] = out[0]
            arrays["tokens"][0], arrays["tokens"][1] = arrays["tokens"][1], found[0][0]
            for name in ("positions", "past", "longest"):
                arrays[name] += 1
        tokens, prob, logits, hidden, *ends = map(torch.from_numpy, held)
        return Continuation(tokens[..., 0], prob[..., 0], logits, hidden, law(ends[0]) if ends else None)


def drawing(graph: ov.Model, vocab_size: int) -> ov.Model:
    """A graph that scores one token, and draws what follows it.

    Its further inputs are `uniform` and `coldness`, [1] float32, one over the temperature. Its outputs are the token,
    [1, 1] int64; its probability at temperature 1, [1, 1]; logits, [1, V]; the hidden state, [1, H]; and cumulative
    probabilities, [1, V], of which the first above the uniform number is taken. No matrix product stands between the
    logits and an output, so OpenVINO computes all of this in float32.

    Args:
        graph: as `page` leaves it; is used up.
        vocab_size: as in `Drawing`.
    """
    logits, hidden = (_flat(result.input_value(0)) for result in graph.get_results())
    width = logits.output(0).partial_shape[1].get_length()
    if width > vocab_size:
        logits, width = op.slice(logits, *(constant(np.array([at])) for at in (0, vocab_size, 1, 1))), vocab_size
    one, uniform, coldness = constant(np.array([1])), *(parameter(name, [1], ov.Type.f32) for name in MORE)
    cumulative = op.cum_sum(op.softmax(op.multiply(logits, coldness), 1), constant(np.int64(1)))
    passed = op.convert(op.less_equal(cumulative, uniform), "i64")
    token = op.minimum(op.reduce_sum(passed, one, True), constant(np.int64(width - 1)))
    prob = op.gather_elements(op.softmax(logits, 1), token, 1)
    results = [op.result(each) for each in (token, prob, logits, hidden, cumulative)]
    return ov.Model(results, [*graph.get_parameters(), uniform, coldness])


def _flat(scored: Any) -> Any:
    """Scores of the one token that was scored, as [1, width]."""
    return op.reshape(scored, constant(np.array([1, scored.partial_shape[2].get_length()])), False)


def below(uniforms: Any) -> Any:
    """The largest float32 numbers that are not above uniform ones, so that none of them reaches 1.

    Cumulative probabilities are float32 too: one of them is above such a number where it is above the original.

    Args:
        uniforms: float64 array.
    """
    near = uniforms.astype(np.float32)
    return np.where(near > uniforms, np.nextafter(near, np.float32(0)), near)


def law(cumulative: Tensor) -> Tensor:
    """The law that tokens were drawn from, exactly: what is between one boundary and the next.

    Args:
        cumulative: [..., V] float32. What is missing to 1 at the end goes to the last token, and what is above 1 never
            comes up. It is changed.
    """
    ends = cumulative.clamp_(max=1)
    ends[..., -1] = 1
    return ends.diff(prepend=ends.new_zeros(*ends.shape[:-1], 1))
