"""A converted model on a CPU through OpenVINO, behind the `LanguageModel` interface."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from threading import Lock

import numpy as np
import openvino as ov
import torch
from torch import Tensor
from torch.nn.functional import pad

from foretoken.models import threads
from foretoken.models.base import Enough, KVCache, Places, Watch
from foretoken.models.openvino_chain import LEAN, Drawing, quickest
from foretoken.models.openvino_graph import facts_of
from foretoken.models.openvino_lean import shorten_inputs, tabulate
from foretoken.models.openvino_pages import page
from foretoken.models.openvino_run import TYPES, Compiled, Inputs, memory
from foretoken.models.openvino_weights import keep_short, weight_bytes
from foretoken.models.paged import WIDTHS, PagedCache, Reading, padded
from foretoken.models.proof import TOLERANCE, draws_amiss, probe
from foretoken.types import Continuation, Scores

AHEAD = 16  # tokens drawn in one go at most
TRIAL = 4  # tokens drawn to see how fast that is
PER_CORE = 8 << 20  # bytes of weights that are worth a thread: several of them wait for each other at every operation
# Bytes: every graph holds the weights once more, as they are multiplied; in bfloat16, in float32 as well. So a model
# has only as many graphs of fixed width as fit in here, which is a quarter of the machine's memory at most.
COPIES = min(2 << 30, memory() // 12)


class OpenVINOModel:
    """A graph of `openvino_graph.trace` behind the `LanguageModel` interface.

    In float32 everything is float32, keys and values too (OpenVINO's own default keeps those in 8 bits). It uses as
    many threads as torch does. Cost per forward, and per token of a chain: one inference of a graph, which
    writes to the cache in place.

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
        narrowest: tokens that one row is read as at least, one of `WIDTHS`.
        note: what the user should know about how it was loaded, or None.
    """

    backend = "openvino"
    stops = False
    note: str | None = None

    def __init__(self, graph: ov.Model, dtype: torch.dtype, max_length: int, vocab_size: int | None = None) -> None:
        self.dtype, self.max_length, self.device = dtype, max_length, torch.device("cpu")
        facts = facts_of(graph)
        self.readable, self.num_parameters = facts.readable, facts.num_parameters
        self._layers = facts.layers
        self.weight_bytes = weight_bytes(graph, dtype.itemsize)
        shorten_inputs(graph)
        tabulate(graph, max_length)
        page(graph, TYPES[dtype])
        if dtype == torch.float32:
            keep_short(graph)
        self._graph, self._any = graph, Compiled(graph, dtype)
        # For one row, each width has a graph of its own, of fixed size: nothing looks at shapes in it, which is a fifth
        # of a small model's step, and another width than the last one's costs nothing.
        self._fixed: dict[int, Compiled] = {}
        self.widen(1)
        self._inputs: dict[tuple[int, int, tuple[int, int], bool], Inputs] = {}
        self.hidden_size, width = (self._any.compiled.output(place).partial_shape[2].get_length() for place in (1, 0))
        self.vocab_size = vocab_size or width
        self._busy = Lock()  # a request holds inputs and outputs of one forward

    def widen(self, narrowest: int) -> None:
        """Read one row as so many tokens at least, and be ready for that."""
        self.narrowest = narrowest
        copies = COPIES // max(self.weight_bytes, 1)
        wanted = WIDTHS[(first := WIDTHS.index(narrowest)) : first + copies]
        self._fixed = {width: graph for width, graph in self._fixed.items() if width in wanted}
        missing = [width for width in wanted if width not in self._fixed]
        with ThreadPoolExecutor(2) as pool:
            made = pool.map(partial(_fixed, self._graph, self.dtype), missing)
            self._fixed |= zip(missing, made, strict=True)

    def new_cache(self, rows: int) -> PagedCache:
        """An empty cache of that many rows."""
        return PagedCache(self._layers, TYPES[self.dtype], rows)

    def width(self, tokens: int) -> int:
        """How many tokens a forward of so many really reads: 1, 4, 6, 8, 16, 32, 48, ..., from `narrowest` on."""
        return padded(max(tokens, self.narrowest))

    def forward(self, tokens: Tensor, cache: KVCache, places: Places | None = None, last: int = 0) -> Scores:
        """Read tokens, adding one pending entry per token (see `LanguageModel.forward`)."""
        assert isinstance(cache, PagedCache)
        rows, new = tokens.shape
        reading = cache.begin(tokens, places, self.narrowest if rows == 1 else 1)
        end = reading.tokens.shape[1]
        begin = end - (last or new)
        with self._busy:
            fixed = self._fixed.get(reading.width) if rows == 1 and reading.tree is None else None
            # Padding is scored as well, so that there are few sizes.
            keep = (0, reading.width) if fixed else (begin, end if last else reading.width)
            found = (fixed or self._any).infer(self._given(reading, keep), reading.cached)
            wanted = slice(begin - keep[0], end - keep[0])
            logits, hidden = (
                torch.from_numpy(out.reshape(rows, keep[1] - keep[0], -1)[:, wanted].copy()) for out in found
            )
        cache.end(tokens, places)
        if more := self.vocab_size - logits.shape[-1]:  # pads, or cuts
            logits = pad(logits, (0, more), value=-torch.inf)
        return Scores(logits, hidden)

    def _given(self, reading: Reading, keep: tuple[int, int]) -> Inputs:
        """Inputs, in the same place every time that the size is the same."""
        size = len(reading.tokens), reading.width, keep, reading.tree is not None
        if size not in self._inputs:
            if len(self._inputs) > 100:
                self._inputs.clear()
            self._inputs[size] = Inputs(*size)
        inputs = self._inputs[size]
        inputs.write(reading)
        if reading.longest > self.max_length:  # then the last are padding
            np.minimum(inputs.arrays["positions"], self.max_length - 1, out=inputs.arrays["positions"])
        if self.vocab_size > self.readable:  # a draft may be shown a token that only its target has
            np.minimum(inputs.arrays["tokens"], self.readable - 1, out=inputs.arrays["tokens"])
        return inputs

    def ahead(self, rows: int) -> int:
        """How many tokens it can draw by itself for that many rows, in one go; 0 if it only scores.

        Its own draws read one token at a time, so where that is slower than to read several, forwards are faster.
        """
        return AHEAD if rows == 1 == self.narrowest and self._draws else 0

    @cached_property
    def _draws(self) -> bool:
        """Whether a graph that draws fits in memory, and says what forwards say; asked once."""
        return self.weight_bytes <= COPIES and draws_amiss(self, self, probe(self.readable), 4) < TOLERANCE[self.dtype]

    def chain(
        self,
        tokens: Tensor,
        at: Tensor,
        cache: KVCache,
        count: int,
        temperature: float = 0.0,
        numbers: Tensor | None = None,
        watch: Watch | None = None,
    ) -> Continuation:
        """Draw tokens for one row (see `LanguageModel.chain`)."""
        assert isinstance(cache, PagedCache)
        reading = cache.begin_chain(tokens, at, count, self._drawing.least)
        with self._busy:
            enough = watch if isinstance(watch, Enough) else None
            drawn = self._drawing.run(
                reading, count, temperature, None if numbers is None else numbers[0].numpy(), enough
            )
        cache.end_chain(tokens, drawn.tokens, at)
        known = drawn.q if drawn.logits is None else drawn.logits
        if known is not None and (more := self.vocab_size - known.shape[-1]):
            logits = drawn.logits if drawn.logits is None else pad(drawn.logits, (0, more), value=-torch.inf)
            drawn = replace(drawn, logits=logits, q=drawn.q if drawn.q is None else pad(drawn.q, (0, more)))
        return drawn

    @cached_property
    def _drawing(self) -> Drawing:
        made = partial(Drawing, self._graph, self.dtype, self.vocab_size)
        if self.weight_bytes >= 2 * PER_CORE:
            return made(self.weight_bytes // PER_CORE)
        # Of a smaller one, arithmetic and waiting take longer than reading its weights.
        options = [made(cores, LEAN[:1]) for cores in sorted({1, min(2, threads.available())})]
        cache, tokens = self.new_cache(1), torch.zeros(1, 2, dtype=torch.int64)
        best = quickest(options, cache.begin_chain(tokens, torch.tensor([1]), TRIAL), TRIAL)
        best.prepare(LEAN[1:])
        for at in (0, 1):  # the first inference of a graph takes longest; greedy ones have it in what `_draws` asks
            best.run(cache.begin_chain(tokens, torch.tensor([at]), 1), 1, 1.0, np.zeros(1))
        return best


def _fixed(graph: ov.Model, dtype: torch.dtype, width: int) -> Compiled:
    """The graph for one row of so many tokens."""
    return Compiled(graph.clone(), dtype, Inputs(1, width, (0, width), False))
