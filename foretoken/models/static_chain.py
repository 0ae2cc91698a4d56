"""Drawing several tokens in one go: forwards of one token, and the choice of the next one between them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from foretoken.models.base import GIVEN, Look, Stop, Wants
from foretoken.models.hf import HFModel, TreeMask
from foretoken.models.static_cache import Storage
from foretoken.types import Continuation

AHEAD = 15  # tokens drawn in one go, at most: with the root they are read by a forward of sixteen
SCORES = 2**26  # and entries of the logits of all of them
ROOM, FIXED = 4, 5 + GIVEN  # columns of a plan: tokens to draw at most, and where the uniform numbers begin
When = Callable[[Tensor, Callable[[], None]], None]  # see `Capture`


class Loop:
    """Draws K tokens for each of so many rows. Inputs and outputs are always in the same place.

    What is pending must be a row's newest tokens, one after the other, so that a slot's number is its position.

    Args:
        rows: B.
        count: the largest K.
        vocab_size: V.
        dims: of the numbers that draw (see `LanguageModel.chain`); 0 if each token is the likeliest one.
        device: where.

    Attributes:
        plan: [B, FIXED+K] float64. Slot of the newest token, temperature, the token before the newest one, the newest,
            tokens to draw at most, what a rule that stops is given, and the uniform numbers.
        drawn: [B, K] int64.
        prob: [B, K] float32.
        logits: [B, K, V] float32.
        hidden: [B, K, H] float or None. From the first run on.
        q: [B, K, V] float32 or None.
        race: [B, K, V] float32 or None. Numbers of a `Race`.
        wanted: [B] int64. Tokens drawn until a rule stopped.
    """

    def __init__(self, rows: int, count: int, vocab_size: int, dims: int, device: torch.device) -> None:
        with torch.inference_mode(False):  # or they could not be written to outside of that mode
            self.plan = torch.zeros(rows, FIXED + count, dtype=torch.float64, device=device)
            self.drawn = torch.zeros(rows, count, dtype=torch.int64, device=device)
            self.prob = torch.zeros(rows, count, device=device)
            self.logits = torch.zeros(rows, count, vocab_size, device=device)
            self.hidden: Tensor | None = None
            self.q = torch.zeros_like(self.logits) if dims == 2 else None
            self.race = torch.ones_like(self.logits) if dims == 3 else None
            self.wanted = torch.zeros(rows, dtype=torch.int64, device=device)
            self._going = torch.zeros(rows, dtype=torch.bool, device=device)

    def write(
        self,
        tokens: Tensor,
        newest: Tensor,
        temperature: float,
        numbers: Tensor | None,
        stop: Stop | None,
        capacity: int,
    ) -> None:
        """Copy what a call is given.

        Args:
            tokens: [B, 2] int64. As in `LanguageModel.chain`.
            newest: [B] int64, on the CPU. Slot of the newest token; `capacity` for a row to be left alone.
            temperature: as in `LanguageModel.chain`.
            numbers: [B, K, ...] float64 or None, on the CPU. As in `LanguageModel.chain`.
            stop: as in `LanguageModel.chain`.
            capacity: slots of a row.
        """
        rows = len(newest)
        plan = torch.zeros(self.plan.shape, dtype=torch.float64)
        plan[:, 0], plan[:, 1] = capacity, temperature
        plan[:rows, 0] = newest
        if stop is not None:
            plan[:rows, ROOM] = torch.tensor(stop.room, dtype=torch.float64)
            plan[:rows, ROOM + 1 : ROOM + 1 + stop.given.shape[1]] = stop.given
        if self.q is not None and numbers is not None:
            plan[:rows, FIXED : FIXED + numbers.shape[1]] = numbers
        if self.race is not None and numbers is not None:
            self.race[:rows, : numbers.shape[1]].copy_(numbers, non_blocking=True)
        here = tokens.device.type == "cpu"
        if here:
            plan[:rows, 2:4] = tokens
        # Host memory is staged before the call returns, so that nobody has to wait.
        self.plan.copy_(plan, non_blocking=True)
        if not here:
            self.plan[:rows, 2:4].copy_(tokens)

    def run(
        self, model: HFModel, storage: Storage, span: int, count: int, look: Look | None = None
    ) -> tuple[Tensor, None]:
        """Draw from what is in the buffers; it does the same for any values in them.

        Args:
            model: draws.
            storage: its keys and values.
            span: slots in view.
            count: K.
            look: as in `LanguageModel.chain`.

        Returns:
            [B, K, 2+R] float64. Tokens, their probabilities, and what `look` makes of them.
        """
        # Always in the same mode, whatever the caller's is.
        with torch.inference_mode(False), torch.no_grad():
            for k in range(count):
                self._next(k, model, storage, span)
            drawn = self._drawn(count)
            seen = look(drawn) if look else None
            told = [drawn.tokens[..., None], drawn.prob[..., None], *([] if seen is None else [seen])]
            return torch.cat([one.to(torch.float64) for one in told], -1), None

    def run_until(
        self, model: HFModel, storage: Storage, span: int, count: int, wants: Wants, when: When
    ) -> tuple[Tensor, None]:
        """As `run`, for as long as a rule wants one more token in some row.

        Args:
            model: as in `run`, like the three after it.
            storage: as above.
            span: as above.
            count: as above.
            wants: the rule, as in `Stop`.
            when: leaves out what nobody wants.

        Returns:
            `wanted`.
        """

        def go_on(k: int) -> None:
            self._next(k, model, storage, span)
            self.wanted.add_(self._going)
            if k + 1 < count:
                more = wants(self._drawn(k + 1), self.plan[:, ROOM + 1 : FIXED])
                self._going.logical_and_(more).logical_and_(self.wanted < self.plan[:, ROOM])

        with torch.inference_mode(False), torch.no_grad():
            self.wanted.zero_()
            self._going.copy_(self.plan[:, ROOM] > 0)
            go_on(0)
            for k in range(1, count):
                when(self._going.any(), partial(go_on, k))
            return self.wanted, None

    def _next(self, k: int, model: HFModel, storage: Storage, span: int) -> None:
        """Draw the k-th token of each row."""
        newest = self.plan[:, 0].to(torch.int64)
        tokens, first = (self.drawn[:, k - 1 : k], newest + k) if k else (self.plan[:, 2:4].to(torch.int64), newest - 1)
        logits, hidden = _read(model, tokens, first, storage, span)
        scores = model._fitted(logits[:, -1]).float()  # [B, V]
        own = scores.softmax(-1)
        if self.race is not None:
            token = ((scores / self.plan[:, 1:2].float()).softmax(-1) / self.race[:, k]).argmax(-1)
        elif self.q is None:
            token = scores.argmax(-1)
        else:
            token, self.q[:, k] = choose(scores, self.plan[:, 1:2].float(), self.plan[:, FIXED + k : FIXED + k + 1])
        self.logits[:, k] = scores
        self.drawn[:, k] = token
        self.prob[:, k] = own.gather(1, token[:, None])[:, 0]
        if hidden is not None:
            if self.hidden is None:
                self.hidden = hidden.new_zeros(len(hidden), self.drawn.shape[1], hidden.shape[-1])
            self.hidden[:, k] = hidden[:, -1]

    def _drawn(self, count: int) -> Continuation:
        """The first so many tokens of each row, and what was said of them."""
        parts = self.drawn, self.prob, self.logits, self.hidden, self.q
        return Continuation(*(None if one is None else one[:, :count] for one in parts))  # type: ignore[arg-type]

    def result(self, rows: int, count: int, stopped: bool) -> Continuation:
        """What was drawn, copied, for the next call writes to the same place.

        Args:
            rows: how many there are; the others are padding.
            count: K.
            stopped: whether it ran until a rule stopped it.
        """
        scored = (None, None) if stopped else (self.logits, self.hidden)
        parts = self.drawn, self.prob, *scored, self.q
        copied = (None if one is None else one[:rows, :count].clone() for one in parts)
        return Continuation(*copied, wanted=self.wanted[:rows].clone() if stopped else None)  # type: ignore[arg-type,misc]

    def report(self, told: Tensor) -> Continuation:
        """What was drawn, brought to the CPU, but for laws.

        Args:
            told: [B, K, 2+R] float64. As `run` returns it, without padding.
        """
        rows, count, width = told.shape
        law = None if self.q is None else self.q[:rows, :count].clone()
        near = told.cpu()
        seen = near[..., 2:].float() if width > 2 else None
        return Continuation(near[..., 0].to(torch.int64), near[..., 1].float(), None, None, law, seen)


def _read(model: HFModel, tokens: Tensor, first: Tensor, storage: Storage, span: int) -> tuple[Tensor, Tensor | None]:
    """Read tokens ([B, N] int64) into the slots from `first` ([B] int64) on, and score the last one of each row."""
    rows, width = tokens.shape
    slots = first[:, None] + torch.arange(width, device=first.device)  # [B, N]
    positions = slots.clamp(0, model.max_length - 1)
    # There is nothing before a text's first token, and what is beyond the end is padding.
    places = torch.where(slots < 0, storage.capacity, slots).clamp_max(storage.capacity)
    places = places + torch.arange(rows, device=first.device)[:, None] * (storage.capacity + 1)
    mask = torch.ones(rows, width, width, dtype=torch.bool, device=first.device).tril()
    tree = TreeMask(first, positions, mask, span, model.dtype, positions)
    return model._run(tokens, positions, tree, storage.writer(places.reshape(-1), rows, span), span - width, last=1)


def choose(logits: Tensor, temperature: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Draw a token per row without looking at any number on the host; one of probability 0 never comes up.

    Args:
        logits: [B, V] float.
        temperature: [B, 1] float.
        uniform: [B, 1] float64. In [0, 1).

    Returns:
        [B] int64. The first tokens whose cumulative probability is above the number; 0 where the logits are no numbers.
        [B, V] float. The law they are from.
    """
    law = ((logits - logits.amax(-1, keepdim=True)) / temperature).softmax(-1)
    # Sums that are rounded in different orders may rise where nothing is added, so only what is likely at all counts.
    cumulative = law.cumsum(-1, dtype=torch.float64).masked_fill(law == 0, 0)
    total = cumulative.amax(-1, keepdim=True)
    point = torch.minimum(uniform * total, total.nextafter(torch.zeros_like(total)))
    return (cumulative > point).to(torch.uint8).argmax(-1), law
