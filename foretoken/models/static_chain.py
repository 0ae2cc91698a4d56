"""Drawing several tokens in one go: forwards of one token, and the choice of the next one between them."""

from __future__ import annotations

import torch
from torch import Tensor

from foretoken.models.base import Look
from foretoken.models.hf import HFModel, TreeMask
from foretoken.models.static_cache import Storage
from foretoken.types import Continuation

AHEAD = 4  # tokens drawn in one go, at most
SCORES = 2**26  # and entries of the logits of all of them


class Loop:
    """Draws K tokens for each of so many rows. Inputs and outputs are always in the same place.

    What is pending must be a row's newest tokens, one after the other, so that a slot's number is its position.

    Args:
        rows: B.
        count: the largest K.
        vocab_size: V.
        sampled: whether tokens are drawn from laws; else each is the likeliest one.
        device: where.

    Attributes:
        plan: [B, 4+K] float64. Slot of the newest token, temperature, the token before the newest one, the newest, and
            the uniform numbers.
        drawn: [B, K] int64.
        prob: [B, K] float32.
        logits: [B, K, V] float32.
        q: [B, K, V] float32 or None.
    """

    def __init__(self, rows: int, count: int, vocab_size: int, sampled: bool, device: torch.device) -> None:
        with torch.inference_mode(False):  # or they could not be written to outside of that mode
            self.plan = torch.zeros(rows, 4 + count, dtype=torch.float64, device=device)
            self.drawn = torch.zeros(rows, count, dtype=torch.int64, device=device)
            self.prob = torch.zeros(rows, count, device=device)
            self.logits = torch.zeros(rows, count, vocab_size, device=device)
            self.q = torch.zeros_like(self.logits) if sampled else None

    def write(self, tokens: Tensor, newest: Tensor, temperature: float, uniforms: Tensor | None, capacity: int) -> None:
        """Copy what a call is given.

        Args:
            tokens: [B, 2] int64. As in `LanguageModel.chain`.
            newest: [B] int64, on the CPU. Slot of the newest token; `capacity` for a row to be left alone.
            temperature: as in `LanguageModel.chain`.
            uniforms: [B, K] float64 or None, on the CPU. As in `LanguageModel.chain`.
            capacity: slots of a row.
        """
        rows = len(newest)
        plan = torch.zeros(self.plan.shape, dtype=torch.float64)
        plan[:, 0], plan[:, 1] = capacity, temperature
        plan[:rows, 0] = newest
        if uniforms is not None:
            plan[:rows, 4 : 4 + uniforms.shape[1]] = uniforms
        here = tokens.device.type == "cpu"
        if here:
            plan[:rows, 2:4] = tokens
        # Host memory is staged before the call returns, so that nobody has to wait.
        self.plan.copy_(plan, non_blocking=True)
        if not here:
            self.plan[:rows, 2:4].copy_(tokens)

    def run(
        self, model: HFModel, storage: Storage, span: int, count: int, look: Look | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Draw from what is in the buffers; it does the same for any values in them.

        Args:
            model: draws.
            storage: its keys and values.
            span: slots in view.
            count: K.
            look: as in `LanguageModel.chain`.

        Returns:
            [B, K, 2+R] float64. Tokens, their probabilities, and what `look` makes of them.
            [B, K, H] float or None. Last hidden state behind each of them.
        """
        # Always in the same mode, whatever the caller's is.
        with torch.inference_mode(False), torch.no_grad():
            newest, heard = self.plan[:, 0].to(torch.int64), []
            tokens, first = self.plan[:, 2:4].to(torch.int64), newest - 1
            for k in range(count):
                logits, hidden = _read(model, tokens, first, storage, span)
                token = self._draw(k, model._fitted(logits[:, -1]).float())
                heard.append(hidden)
                tokens, first = token[:, None], newest + (k + 1)
            states = [one for one in heard if one is not None]
            hidden = torch.cat(states, 1) if states else None
            drawn, prob, logits = self.drawn[:, :count], self.prob[:, :count], self.logits[:, :count]
            seen = look(Continuation(drawn, prob, logits, hidden, None)) if look else None
            told = [drawn[..., None], prob[..., None], *([] if seen is None else [seen])]
            return torch.cat([one.to(torch.float64) for one in told], -1), hidden

    def _draw(self, k: int, logits: Tensor) -> Tensor:
        """[B] int64. The k-th token of each row, drawn from what was scored ([B, V] float32)."""
        own = logits.softmax(-1)
        if self.q is None:
            token = logits.argmax(-1)
        else:
            token, law = choose(logits, self.plan[:, 1:2].float(), self.plan[:, 4 + k : 5 + k])
            self.q[:, k] = law
        self.logits[:, k] = logits
        self.drawn[:, k] = token
        self.prob[:, k] = own.gather(1, token[:, None])[:, 0]
        return token

    def result(self, rows: int, count: int, hidden: Tensor | None) -> Continuation:
        """What was drawn, copied, for the next call writes to the same place.

        Args:
            rows: how many there are; the others are padding.
            count: K.
            hidden: [B, K, H] float or None. As `run` returns it.
        """
        drawn, prob, logits = (one[:rows, :count].clone() for one in (self.drawn, self.prob, self.logits))
        states, law = (None if one is None else one[:rows, :count].clone() for one in (hidden, self.q))
        return Continuation(drawn, prob, logits, states, law)

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
