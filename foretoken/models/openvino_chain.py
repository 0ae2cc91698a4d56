"""A paged graph that goes on by itself: one inference reads two tokens of a row and draws the next few.

The graph is repeated, each copy reading the token that was chosen from the scores of the one before it. All copies
share their weights, which stay in the processor's caches, and nothing of ours runs in between.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as op

from foretoken.models.openvino_pages import constant, parameter

START = 2  # tokens that the first copy reads
COLD = np.float32(1e30)  # one over the temperature at which only the likeliest token has a probability


def unroll(graph: ov.Model, count: int, vocab_size: int) -> ov.Model:
    """A graph that draws tokens one after the other.

    Its further inputs are `uniforms`, [count] float32, and `coldness`, [1] float32, one over the temperature. Its
    outputs are tokens [1, count] int64; their probabilities at temperature 1, [1, count]; logits [count, V]; hidden
    states [count, H]; and cumulative probabilities, [count, V], of which the first above a uniform number is taken.
    They all are outputs, without a matrix product in between, so OpenVINO computes them in float32 (`page`).

    Args:
        graph: as `page` leaves it.
        count: tokens to draw.
        vocab_size: a token drawn is below it.
    """
    copies = [graph.clone() for _ in range(count)]
    for copy in copies[1:]:
        for here, there in zip(copies[0].get_ordered_ops(), copy.get_ordered_ops(), strict=True):
            if here.get_type_name() == "Constant":
                there.output(0).replace(here.output(0))
    given = {name: node for node in copies[0].get_parameters() for name in node.output(0).get_names()}
    uniforms, coldness = parameter("uniforms", [count], ov.Type.f32), parameter("coldness", [1], ov.Type.f32)
    drawn: list[list[Any]] = []
    for place, copy in enumerate(copies):
        if place:
            _follow(copy, given, drawn[-1][0], place)
        logits, hidden = (_flat(result.input_value(0)) for result in copy.get_results())
        logits = _cut(logits, vocab_size)
        uniform = op.slice(uniforms, *(constant(np.array([at])) for at in (place, place + 1, 1, 0)))
        drawn.append([*_draw(logits, uniform, coldness), logits, hidden])
    tokens, prob, cumulative, logits, hidden = zip(*drawn, strict=True)
    joined = [op.concat(list(tokens), 1), op.concat(list(prob), 1)]
    joined += [op.concat(list(each), 0) for each in (logits, hidden, cumulative)]
    return ov.Model([op.result(each) for each in joined], [*copies[0].get_parameters(), uniforms, coldness])


def _follow(copy: ov.Model, given: dict[str, Any], token: Any, place: int) -> None:
    """Let a copy read a token that was drawn, so many places after the newest of those given."""
    last = op.slice(given["positions"], *(constant(np.array([at])) for at in (START - 1, START, 1, 0)))
    fed = {
        "tokens": token,
        "positions": op.add(last, constant(np.int64(place))),
        "past": op.add(given["past"], constant(np.int32(START - 1 + place))),
        "longest": op.add(given["longest"], constant(np.int32(place))),
        "begins": op.constant(np.array([0, 1], np.int32)),
        "keep": op.constant(np.array([0])),
    }
    for node in copy.get_parameters():
        (name,) = node.output(0).get_names() & (fed.keys() | given.keys())
        node.output(0).replace((fed.get(name) or given[name]).output(0))


def _draw(logits: Any, uniform: Any, coldness: Any) -> tuple[Any, Any, Any]:
    """Token, its probability at temperature 1, and cumulative probabilities at the one asked for."""
    one = constant(np.array([1]))
    cumulative = op.cum_sum(op.softmax(op.multiply(logits, coldness), 1), constant(np.int64(1)))
    passed = op.convert(op.less_equal(cumulative, uniform), "i64")
    last = logits.output(0).partial_shape[1].get_length() - 1
    token = op.minimum(op.reduce_sum(passed, one, True), constant(np.int64(last)))
    prob = op.gather_elements(op.softmax(logits, 1), token, 1)
    return token, prob, cumulative


def _flat(scored: Any) -> Any:
    """Scores of the one token that was scored, as [1, width]."""
    return op.reshape(scored, constant(np.array([1, scored.partial_shape[2].get_length()])), False)


def _cut(logits: Any, vocab_size: int) -> Any:
    """Logits of tokens that the vocabulary has."""
    if logits.output(0).partial_shape[1].get_length() <= vocab_size:
        return logits
    return op.slice(logits, *(constant(np.array([at])) for at in (0, vocab_size, 1, 1)))


def below(uniforms: Any) -> Any:
    """The largest float32 numbers that are not above uniform ones, so that none of them reaches 1.

    Cumulative probabilities are float32 too: one of them is above such a number where it is above the original.

    Args:
        uniforms: float64 array.
    """
    near = uniforms.astype(np.float32)
    return np.where(near > uniforms, np.nextafter(near, np.float32(0)), near)


def law(cumulative: Any) -> Any:
    """The law that tokens were drawn from, exactly: what is between one boundary and the next.

    Args:
        cumulative: [K, V] float32 array, from `unroll`. What is missing to 1 at the end goes to the last token, and
            what is above 1 never comes up.
    """
    ends = np.minimum(cumulative, 1)
    ends[:, -1] = 1
    return np.diff(ends, prepend=np.float32(0), axis=1)
