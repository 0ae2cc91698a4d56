"""A device that is far away, on a CPU: its tensors cannot be mixed with others, and waiting for it is counted.

Its tensors are real ones that say they are on a GPU, so whatever would fail there for being in the wrong place fails
here, and whatever would make the host wait for it is noted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from foretoken.models.base import Enough, LanguageModel, Places, Stop, Wants, Watch
from foretoken.types import Continuation, Scores

DEVICE = torch.device("cuda", 0)
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
READS = {"tolist", "item", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__", "__contains__", "nonzero"}
# Functions that take tensors of both kinds: copies, and what only looks at shapes.
MIXED = {"copy_", "to", "__get__", "type_as", "expand_as", "view_as"}


class Far(Tensor):
    """A tensor there."""

    device = DEVICE  # type: ignore[assignment]


def far(tensor: Tensor) -> Tensor:
    """The tensor, there."""
    return tensor.as_subclass(Far)


class FarDevice(TorchFunctionMode):
    """While it is entered, tensors that are made for `DEVICE` are there.

    Attributes:
        waits: what the host waited for, by name, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        given = [one for one in tree_leaves((args, options)) if isinstance(one, Tensor)]
        there = any(isinstance(one, Far) for one in given)
        to = [one for one in tree_leaves((args, options)) if isinstance(one, torch.device)]
        if name == "to" and len(given) == 2:
            to = [given[1].device]
        blocking = not options.get("non_blocking", False)
        if name in READS and there:
            self.waits.append(name)
        elif name in ("to", "copy_") and blocking:
            source = given[-1] if name == "copy_" else given[0]
            place = given[0].device if name == "copy_" else to[0] if to else source.device
            if isinstance(source, Far) != (place == DEVICE):
                self.waits.append(name)
        elif to == [DEVICE] and name == "tensor":
            self.waits.append(name)  # made here, then copied
        elif there and name not in MIXED:
            near = [one for one in given if not isinstance(one, Far) and one.dim()]
            if near and name in ("__getitem__", "__setitem__"):
                self.waits.append(name)  # indices are brought there
            elif near:
                raise RuntimeError(f"{name}: tensors on two devices")
            elif name in ("__getitem__", "__setitem__") and any(one.dtype == torch.bool for one in given[1:]):
                self.waits.append(name)
        return self._call(func, name, args, options, there, to)

    def _call(self, func: Any, name: str, args: Any, options: Any, there: bool, to: list[torch.device]) -> Any:
        if to:
            args, options = tree_map(lambda one: torch.device("cpu") if one == DEVICE else one, (args, options))
            there = to == [DEVICE]
        if name == "to" and len(args) > 1 and isinstance(args[1], Far):
            args = (args[0], torch.Tensor.as_subclass(args[1], Tensor), *args[2:])
        if name in ("cpu", "numpy"):
            there = False
        with torch._C.DisableTorchFunctionSubclass():
            out = func(*args, **options)

            def placed(one: Any) -> Any:
                if not isinstance(one, Tensor) or (name not in ("to", "cpu") and any(one is arg for arg in args)):
                    return one
                return one.as_subclass(Far if there else Tensor)

            return tree_map(placed, out)


class FarModel:
    """A model there. It waits for nothing, as those of the backend `graphs`."""

    device = DEVICE

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self.vocab_size, self.max_length = model.vocab_size, model.max_length
        self.hidden_size: int = getattr(model, "hidden_size", 0)
        self.width: Callable[[int], int] = model.width
        self.new_cache = model.new_cache
        self.ahead: Callable[[int], int] = model.ahead
        self.stops = model.stops

    def forward(self, tokens: Tensor, cache: Any, places: Places | None = None, last: int = 0) -> Scores:
        with torch._C.DisableTorchFunction():
            near = places and Places(*(one.as_subclass(Tensor) for one in places))
            scores = self._model.forward(tokens.as_subclass(Tensor), cache, near, last)
            hidden = None if scores.hidden is None else far(scores.hidden)
            return Scores(far(scores.logits), hidden)

    def chain(
        self,
        tokens: Tensor,
        at: Tensor,
        cache: Any,
        count: int,
        temperature: float = 0.0,
        numbers: Tensor | None = None,
        watch: Watch | None = None,
    ) -> Continuation:
        assert not isinstance(watch, Enough), "nobody asks on a device"
        stop = watch if isinstance(watch, Stop) else None
        look = None if isinstance(watch, Stop) else watch
        with torch._C.DisableTorchFunction():
            if stop is not None:  # what the rule knows, such as a head, is there, too
                stop = stop._replace(wants=self._near(stop.wants))
            drawn = self._model.chain(tokens.as_subclass(Tensor), at, cache, count, temperature, numbers, stop)
            parts = (drawn.tokens, drawn.prob, drawn.logits, drawn.hidden, drawn.q, None, drawn.wanted)
            there = Continuation(*(None if one is None else far(one) for one in parts))  # type: ignore[arg-type]
        near = there.near(look)
        return there if look is None else replace(near, logits=None, hidden=None)

    @staticmethod
    def _near(wants: Wants) -> Wants:
        def asked(drawn: Continuation, given: Tensor) -> Tensor:
            parts = (drawn.tokens, drawn.prob, drawn.logits, drawn.hidden, drawn.q)
            there = Continuation(*(None if one is None else far(one) for one in parts))  # type: ignore[arg-type]
            with torch._C._EnableTorchFunction(), FarDevice() as device:
                found = wants(there, far(given))
            assert not device.waits, "a rule looks at no value"
            return found.as_subclass(Tensor)

        return asked
