"""A `transformers` model whose steps have few shapes and fixed places in memory, so that they can be captured."""

from __future__ import annotations

from functools import partial
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from foretoken.errors import ModelError
from foretoken.models.base import Enough, KVCache, Places, Stop, Watch
from foretoken.models.capture import AsItIs, Capture, Step
from foretoken.models.hf import HFModel, TreeMask
from foretoken.models.proof import TOLERANCE, distance, draws_amiss, probe, read_with_detours, stops_as_told
from foretoken.models.static_cache import LEAST, Pool, StaticCache, Storage, bucket
from foretoken.models.static_chain import AHEAD, SCORES, Loop
from foretoken.models.static_inputs import WINDOW, Inputs, Reading
from foretoken.types import Continuation, Scores


class StaticModel(HFModel):
    """An adapted model that reads through fixed buffers. Made by `freeze`.

    Rows, new tokens and the slots that attention looks at are padded to powers of two, so that there are few sizes.
    The first forward of a size captures it, the others only copy their inputs and run what was captured: on a GPU one
    launch, whatever the model's depth. Nothing in a forward waits for the device. Prompts are read uncaptured.

    Cost per forward: one forward of the model, padding included; keys and values are written in place.

    Args:
        adapted: what `adapt` made; it shares its weights.
        layers: heads, and dimensions of keys and values, of each layer that keeps any.
        windows: sliding windows of the model.
        capture: makes of a step something that does the same in less time.
    """

    backend = "graphs"

    def __init__(
        self,
        adapted: HFModel,
        layers: list[tuple[int, int, int] | None],
        windows: set[int],
        capture: Capture,
    ) -> None:
        self.__dict__ |= adapted.__dict__
        self._windows = {window for window in windows if window < adapted.max_length}
        self._pool = Pool(lambda rows, capacity: Storage(layers, rows, capacity, self.device, self.dtype))
        self._inputs: dict[tuple[int, int], Inputs] = {}
        self._loops: dict[tuple[int, int], Loop] = {}
        self._capture = capture
        self._busy = Lock()  # inputs and outputs are those of one forward

    def width(self, tokens: int) -> int:
        """How many tokens a forward of so many really reads: 1, 2, 4, 8, ..."""
        return bucket(tokens) if tokens <= WINDOW else tokens

    def new_cache(self, rows: int) -> StaticCache:  # type: ignore[override]  # each model has its own kind
        """An empty cache of that many rows."""
        return StaticCache(self._pool, rows)

    def forward(self, tokens: Tensor, cache: KVCache, places: Places | None = None, last: int = 0) -> Scores:
        """Read tokens, adding one pending entry per token (see `LanguageModel.forward`)."""
        assert isinstance(cache, StaticCache)
        rows, new = tokens.shape
        positions, mask = self._placed(places, cache, new)
        with self._busy:
            storage, slots = cache.begin(positions)
            span = _span(slots, storage)
            known = cache.known() if self._windows else None
            read = Reading(cache.lengths, tokens, positions, slots, known, mask)
            if mask.shape[2] <= WINDOW:
                inputs, cut = self._buffers(rows, new), slice(new - last if last else 0, new)
                inputs.write(read, storage.capacity)
                size = (len(inputs.held), inputs.width, span)
                logits, hidden = self._run_captured(storage, size, lambda: self._step(inputs.read(), storage, span))
            else:
                read, cut = read.at(self.device, storage.capacity), slice(None)
                logits, hidden = self._step(read, storage, span, last)
            # Copies: the next forward writes to the same place.
            logits = self._fitted(logits[:rows, cut]).to(torch.float32, copy=True)
            hidden = None if hidden is None else hidden[:rows, cut].clone()
        cache.end()
        return Scores(logits, hidden)

    @property
    def stops(self) -> bool:
        """Where a part of a captured step can be left out; else drawing in vain costs more than to be asked."""
        return self._capture.skips

    def ahead(self, rows: int) -> int:
        """How many tokens it can draw by itself: a few, or fewer where their logits would take much memory."""
        return min(AHEAD, SCORES // (bucket(rows) * self.vocab_size))

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
        """Read the newest token of each row, draw the next ones, and read all of those but the last.

        All of it is captured as one, what the caller looks at as well. What it captures is bounded by the few sizes of
        rows, counts and slots in view, and the largest of its outputs are shared by all of them.
        """
        assert isinstance(cache, StaticCache)
        stop = watch if isinstance(watch, Stop) else None
        look = None if watch is None or isinstance(watch, Stop | Enough) else watch
        rows = len(at)
        size = bucket(rows), 0 if numbers is None else numbers.dim()
        with self._busy:
            positions = (at[:, None] + torch.arange(count)).clamp_max(self.max_length - 1)
            before = None if cache.pending else (cache.lengths + 1 == at).to(torch.int64)
            storage, slots = cache.begin(positions, before)
            span = _span(slots, storage)
            if size not in self._loops:
                self._loops[size] = Loop(size[0], self.ahead(rows), self.vocab_size, size[1], self.device)
            loop = self._loops[size]
            # A row whose newest token is elsewhere, having outgrown the context, is left alone.
            newest = torch.where(slots[:, 0] == at, at, storage.capacity)
            loop.write(tokens, newest, temperature, numbers, stop, storage.capacity)
            what, asked = (self, storage, span, count), look if stop is None else stop.wants
            step = partial(loop.run, *what, look)
            if stop is not None:
                step = partial(loop.run_until, *what, stop.wants, self._capture.when)
            told, _ = self._run_captured(storage, (*size, span, count, asked), step)
            drawn = loop.result(rows, count, stop is not None) if look is None else loop.report(told[:rows])
        cache.end()
        return drawn

    def _buffers(self, rows: int, new: int) -> Inputs:
        size = bucket(rows), bucket(new)
        if size not in self._inputs:
            self._inputs[size] = Inputs(*size, self.device)
        return self._inputs[size]

    def _run_captured(self, storage: Storage, size: tuple[Any, ...], step: Step) -> tuple[Tensor, Tensor | None]:
        """A step of this size on this storage, captured the first time."""
        if size not in storage.steps:
            storage.steps[size] = self._capture(step)
        captured: Step = storage.steps[size]
        return captured()

    def _step(self, read: Reading, storage: Storage, span: int, last: int = 0) -> tuple[Tensor, Tensor | None]:
        """One forward from what is in the buffers; it does the same for any values in them."""
        # Always in the same mode, whatever the caller's is.
        with torch.inference_mode(False), torch.no_grad():
            rows, width = read.tokens.shape
            known = read.positions if read.known is None else read.known
            tree = TreeMask(read.lengths, known, read.mask, span, self.dtype, read.positions)
            write = storage.writer(read.slots.reshape(-1), rows, span)
            return self._run(read.tokens, read.positions, tree, write, span - width, last)


def _span(slots: Tensor, storage: Storage) -> int:
    """How many slots a step looks at that writes to these ([B, N] int64)."""
    return min(max(bucket(int(slots.max()) + 1), LEAST), storage.capacity)


def freeze(adapted: HFModel, capture: Capture | None = None) -> StaticModel:
    """Let an adapted model read through fixed buffers, and prove that it still says the same.

    Costs five short forwards of the model as it was, and the first captures.

    Args:
        adapted: what `adapt` made.
        capture: as in `StaticModel`; None runs steps as they are.

    Raises:
        ModelError: its steps cannot be captured, or say something else then.
    """
    name = adapted.model.config.model_type
    hint = "use `--backend torch`"
    tokens = probe(int(adapted.model.get_input_embeddings().weight.shape[0]), adapted.device)
    cache = adapted.new_cache(1)
    with torch.inference_mode(False), torch.no_grad():
        _, tree = adapted._read(tokens[:, :1], cache)
        expected = read_with_detours(adapted.forward, adapted.new_cache(1), tokens)
        try:
            model = StaticModel(adapted, cache.layers(), tree.windows, capture or AsItIs())
            # Twice, so that the second time only what was captured runs.
            found = [read_with_detours(model.forward, model.new_cache(1), tokens) for _ in range(2)]
            amiss = draws_amiss(model, adapted, tokens, model.ahead(1))
            _check_skipping(model, tokens)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a model's code does that cannot be captured
            raise ModelError(f"a step of `{name}` models cannot be captured: {error}", hint=hint) from error
    # What is no number is no less.
    if not all(error < TOLERANCE[adapted.dtype] for error in (amiss, *(distance(one, expected) for one in found))):
        raise ModelError(f"`{name}` models do not say the same in static shapes", hint=hint)
    return model


def _check_skipping(model: StaticModel, tokens: Tensor) -> None:
    """Leave nothing out of captured steps where that does not work."""
    if model._capture.skips:
        try:
            model._capture.skips = stops_as_told(model, tokens)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # it is new to PyTorch, and everything goes without it
            model._capture.skips = False
