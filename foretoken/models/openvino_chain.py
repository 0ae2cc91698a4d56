"""A paged graph that also draws: its next inputs follow from its outputs, so that nothing of ours runs in between.

Drawing several tokens in one larger graph would save the calls, but every operation of such a graph finds the caches
full of the target's weights, while a small one that runs again finds itself there.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import openvino as ov
import torch
from openvino import opset13 as op

from foretoken.host import real, whole
from foretoken.models.base import Enough
from foretoken.models.openvino_pages import constant, parameter
from foretoken.models.openvino_run import Compiled, Inputs
from foretoken.models.paged import Reading
from foretoken.types import Continuation

Kind = tuple[int, bool]
BOTH: Kind = (2, False)  # newest and the token before it, which may be new as well; and any law
LEAN: tuple[Kind, ...] = ((2, True), (1, True), (1, False), BOTH)
MORE = ("uniform", "coldness")  # inputs beside those of a forward
FILLING = 8 << 20  # numbers that no cache holds
TURNS = 5  # more of them change little
COLD = np.float32(1e30)  # one over the temperature at which only the likeliest token has a probability


class Drawing:
    """Graphs that read a token or two of a row and draw the next one, again and again.

    Args:
        graph: as `page` leaves it.
        dtype: of arithmetic and of keys and values.
        vocab_size: a token drawn is below it.
        cores: threads at most.
        kinds: what to `prepare` at once.
    """

    def __init__(
        self, graph: ov.Model, dtype: torch.dtype, vocab_size: int, cores: int, kinds: Sequence[Kind] = (BOTH,)
    ) -> None:
        self._graph, self._dtype, self._vocab_size, self._cores = graph, dtype, vocab_size, cores
        self._made: dict[Kind, tuple[Compiled, Inputs]] = {}
        self.prepare(kinds)

    def prepare(self, kinds: Sequence[Kind]) -> None:
        """Make graphs: how many tokens each reads, and whether it only ever takes the likeliest one.

        One that reads two tokens and draws from any law does for all. Others have less to do, but each holds the
        weights once more.
        """
        with ThreadPoolExecutor(2) as pool:
            self._made |= zip(kinds, pool.map(self._make, kinds), strict=True)

    def _make(self, kind: Kind) -> tuple[Compiled, Inputs]:
        width, likeliest = kind
        more = {} if likeliest else {name: np.zeros(1, np.float32) for name in MORE}
        inputs = Inputs(1, width, (width - 1, width), False, **more)
        drawn = drawing(self._graph.clone(), self._vocab_size, likeliest)
        return Compiled(drawn, self._dtype, inputs, self._cores), inputs

    @property
    def least(self) -> int:
        """Tokens that it reads at least."""
        return min(width for width, _ in self._made)

    def run(
        self, reading: Reading, count: int, temperature: float, numbers: Any, enough: Enough | None = None
    ) -> Continuation:
        """Draw tokens, and read all of them but the last.

        Args:
            reading: of one or two tokens, with room for what is drawn.
            count: K, tokens to draw.
            temperature: 0 takes the likeliest token each time.
            numbers: [K, ...] float64 or None, an array (see `LanguageModel.chain`).
            enough: as in `LanguageModel.chain`.
        """
        # A race is run here, among what such a graph says of the likeliest token.
        races, heat = numbers is not None and numbers.ndim == 2, temperature
        temperature = 0.0 if races else temperature
        likeliest = not temperature and (reading.width, True) in self._made
        compiled, inputs = self._made[reading.width, likeliest]
        inputs.write(reading)
        arrays, counters, newest = inputs.arrays, inputs.counters, inputs.arrays["tokens"]
        if not likeliest:
            arrays["coldness"][0] = 1 / temperature if temperature else COLD
        uniforms = below(numbers) if temperature else np.zeros(count, np.float32)
        drawn, probs, ended = list[int](), list[float](), None
        held: list[Any] = []
        scores = 2 if enough else 0  # outputs that nobody asks for: logits and hidden states
        for place in range(count):
            if not likeliest:
                arrays["uniform"][0] = uniforms[place]
            token, prob, *found = compiled.infer(inputs, reading.cached)[: 5 if temperature else 4]
            if races:
                token, prob = winner(found[0][0], token.item(), prob, heat, numbers[place])
            if kept := found[scores:]:
                held = held or [np.empty((1, count, out.shape[1]), out.dtype) for out in kept]
                for all_of_it, out in zip(held, kept, strict=True):
                    all_of_it[0, place] = out[0]
            newest[0], newest[-1] = newest[-1], token
            counters += 1
            drawn.append(token.item())
            probs.append(prob.item())
            if enough and enough.met(drawn[-1], probs):
                ended = whole([place + 1])
                break
        held = [out[:, : len(drawn)] for out in held]
        held[2 - scores :] = map(law, held[2 - scores :])
        logits, hidden, q = [*[None] * scores, *map(torch.from_numpy, held), None][:3]
        return Continuation(whole([drawn]), real([probs]), logits, hidden, q, wanted=ended)


def quickest(drawings: list[Drawing], reading: Reading, count: int) -> Drawing:
    """The one that draws so many likeliest tokens soonest in caches full of other things, as a target leaves them.

    Args:
        drawings: of the same model.
        reading: as `Drawing.run` takes it, of two tokens.
        count: how many to draw.
    """
    seconds: dict[Drawing, list[float]] = {one: [] for one in drawings}
    filling = np.ones(FILLING, np.float32)
    for turn in range(1 + TURNS):
        for one in drawings:
            filling.sum()
            begin = perf_counter()
            one.run(reading, count, 0.0, None)
            if turn:
                seconds[one].append(perf_counter() - begin)
    return min(drawings, key=lambda one: median(seconds[one]))


def drawing(graph: ov.Model, vocab_size: int, likeliest: bool) -> ov.Model:
    """A graph that scores one token, and draws what follows it.

    Its outputs are the token, [1, 1] int32; its probability at temperature 1, [1, 1]; logits, [1, V]; and the hidden
    state, [1, H]. Where the token need not be the likeliest one, there are inputs `uniform` and `coldness`, [1]
    float32, one over the temperature, and one more output: cumulative probabilities, [1, V], of which the first above
    the uniform number is taken. No matrix product stands between the logits and an output, so OpenVINO computes all of
    this in float32.

    Args:
        graph: as `page` leaves it; is used up.
        vocab_size: as in `Drawing`.
        likeliest: whether it takes the likeliest token always.
    """
    logits, hidden = (_flat(result.input_value(0)) for result in graph.get_results())
    width = logits.output(0).partial_shape[1].get_length()
    if width > vocab_size:
        logits, width = op.slice(logits, *(constant(np.array([at])) for at in (0, vocab_size, 1, 1))), vocab_size
    one, more, drawn = constant(np.array([1])), [], []
    if likeliest:
        token = op.topk(logits, constant(np.int32(1)), 1, "max", "none", "i32").output(1)
        prob = op.reduce_max(op.softmax(logits, 1), one, True)
    else:
        uniform, coldness = more = [parameter(name, [1], ov.Type.f32) for name in MORE]
        drawn = [op.cum_sum(op.softmax(op.multiply(logits, coldness), 1), constant(np.int64(1)))]
        passed = op.convert(op.less_equal(drawn[0], uniform), "i32")
        token = op.minimum(op.reduce_sum(passed, one, True), constant(np.int32(width - 1)))
        prob = op.gather_elements(op.softmax(logits, 1), token, 1)
    results = [op.result(each) for each in (token, prob, logits, hidden, *drawn)]
    return ov.Model(results, [*graph.get_parameters(), *more])


def _flat(scored: Any) -> Any:
    """Scores of the one token that was scored, as [1, width]."""
    return op.reshape(scored, constant(np.array([1, scored.partial_shape[2].get_length()])), False)


def winner(logits: Any, likeliest: int, prob: Any, temperature: float, numbers: Any) -> tuple[Any, Any]:
    """The token that wins a race, and its probability at temperature 1.

    Args:
        logits: [V] float32 array.
        likeliest: token.
        prob: its probability at temperature 1.
        temperature: of the law that races.
        numbers: [V] float64 array, or longer.
    """
    over = logits - logits[likeliest]
    token = (np.exp(over / temperature) / numbers[: len(over)]).argmax()
    return token, prob * np.exp(over[token])


def below(uniforms: Any) -> Any:
    """The largest float32 numbers that are not above uniform ones, so that none of them reaches 1.

    Cumulative probabilities are float32 too: one of them is above such a number where it is above the original.

    Args:
        uniforms: float64 array.
    """
    near = uniforms.astype(np.float32)
    near.view(np.int32)[...] -= near > uniforms  # the bits of a positive number, as a whole one, count such numbers
    return near


def law(cumulative: Any) -> Any:
    """The law that tokens were drawn from, exactly: what is between one boundary and the next.

    Args:
        cumulative: [..., V] float32 array. What is missing to 1 at the end goes to the last token, and what is above 1
            never comes up.
    """
    ends = np.minimum(cumulative, np.float32(1))
    ends[..., -1] = 1
    between = np.empty_like(ends)
    between[..., 0] = ends[..., 0]
    np.subtract(ends[..., 1:], ends[..., :-1], between[..., 1:])
    return between
