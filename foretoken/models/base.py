"""What the engine asks of a language model and of its cache. Nothing else is ever asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from foretoken.types import Continuation, Scores

Look: TypeAlias = Callable[[Continuation], Tensor | None]  # see `LengthPolicy.look`
GIVEN = 20  # numbers that a rule may depend on


Wants: TypeAlias = Callable[[Continuation, Tensor], Tensor]


class Stop(NamedTuple):
    """A rule by which a device stops drawing, so that the host has to look at no token.

    Attributes:
        room: per row. Tokens to draw at most.
        given: [B, G] float64, on the CPU, G up to `GIVEN`. What the rule depends on in this step.
        wants: the rule. Whether one more token of each row is wanted ([B] bool), given those drawn so far, at least
            one, and `given`. It is captured with the draft's forwards, so it is the same function for every call,
            depends on nothing else, and looks at no value.
    """

    room: Sequence[int]
    given: Tensor
    wants: Wants


class Enough(NamedTuple):
    """A rule by which a model on the host ends its draws.

    Attributes:
        after: numbers of tokens after which it is asked, since to ask takes time as well.
        rule: whether none is wanted after those drawn so far, given the model's own probability of each.
        ends: tokens that nothing may follow.
    """

    after: Collection[int]
    rule: Callable[[Sequence[float]], bool]
    ends: Collection[int] = ()

    def met(self, newest: int, probs: Sequence[float]) -> bool:
        """Whether nothing is drawn after the newest token, of which the last of these probabilities is."""
        return newest in self.ends or (len(probs) in self.after and self.rule(probs))


Watch: TypeAlias = Look | Stop | Enough  # how a chain is looked at while it is drawn


class Places(NamedTuple):
    """Where tokens stand that do not simply follow each other, and what they see.

    Attributes:
        positions: [B, N] int64, on the CPU. Position of each token in its sequence. Of padding it may be beyond the
            context; then it is read as the last one there.
        mask: [B, N, P+N] bool, on the CPU. Which pending entries (P earlier ones, then these N) each token may see;
            every token sees its row's committed entries.
    """

    positions: Tensor
    mask: Tensor


class KVCache(Protocol):
    """Keys and values of the rows in flight.

    A row holds committed entries, then pending ones written by forwards since the last commit.

    Attributes:
        pending: pending entries per row, padding included.
    """

    pending: int

    @property
    def lengths(self) -> Tensor:
        """[B] int64, on the CPU. Committed entries per row."""
        ...

    def commit(self, kept: Sequence[Sequence[int]]) -> None:
        """Keep some pending entries of each row, strictly increasing, and drop the rest."""
        ...

    def extend(self, other: Any) -> None:
        """Append the rows of another cache of the same model; neither may have pending entries."""
        ...

    def release(self, rows: Iterable[int]) -> None:
        """Forget rows; the others move as `swap_remove` says."""
        ...


class LanguageModel(Protocol):
    """A causal language model that can read a token tree.

    Attributes:
        vocab_size: number of logits.
        max_length: longest sequence it can read, in tokens.
        device: where its scores live, and laws that are made of them.
    """

    vocab_size: int
    max_length: int
    device: torch.device

    @property
    def stops(self) -> bool:
        """Whether a `Stop` saves it the draws after that."""
        ...

    def new_cache(self, rows: int) -> KVCache:
        """An empty cache of that many rows."""
        ...

    def width(self, tokens: int) -> int:
        """How many tokens a forward of so many really reads; the rest is padding."""
        ...

    def forward(self, tokens: Tensor, cache: KVCache, places: Places | None = None, last: int = 0) -> Scores:
        """Read tokens, adding one pending entry per token to the cache. Never commits.

        Args:
            tokens: [B, N] int64, on the CPU or on its device.
            cache: the rows' cache.
            places: where they stand; None where they go on from the end of the cache and see all before them.
            last: score only the last this many tokens; 0 scores all.

        Returns:
            Scores of the N (or `last`) tokens.
        """
        ...

    def ahead(self, rows: int) -> int:
        """How many tokens it can draw by itself for that many rows, in one go; 0 if it only scores."""
        ...

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

        Adds `count` pending entries. Of the token before the newest one the cache may hold an entry, which is written
        again, or none yet, where nothing is pending; then it is committed. So all rows read two tokens, always.

        Args:
            tokens: [B, 2] int64, on the CPU or on its device. The token before the newest one, and the newest.
            at: [B] int64, on the CPU. Position of the newest one.
            cache: the rows' cache.
            count: K, from 1 to `ahead(B)`.
            temperature: 0 takes the likeliest token each time.
            numbers: [B, K, ...] float64 or None, on the CPU; None at temperature 0. One in [0, 1) for each token, which
                is the first whose cumulative probability is above it; or those of a `Race`, [B, K, V], in which the
                token wins; then there is no `q`, since that is no draw of its own.
            watch: how it is looked at on the way; None draws all, and nobody waits.
                A `Look`, for models on a device, is what a caller who looks at the tokens wants to know of them, the
                same function for every call: tokens, `prob` and `seen` come to the CPU in one copy, without logits and
                hidden states.
                A `Stop`, for models that can, ends the draws of a row before `count`, and all of them where no row goes
                on: tokens, `prob`, `q` and `wanted` is all there is, and nobody waits.
                An `Enough`, for models on the CPU, ends those of the only row, which `wanted` then tells; one that
                gains nothing by that need not ask. Logits and hidden states, which nobody looks at, may be missing.
        """
        ...


def following(lengths: Tensor, past: int, count: int) -> Places:
    """Places of tokens that go on from the end of a cache; the last may be beyond the context.

    Args:
        lengths: [B] int64, on the CPU. Committed entries of each row.
        past: P, pending ones.
        count: N.
    """
    positions = lengths[:, None] + torch.arange(past, past + count)
    mask = torch.ones(count, past + count, dtype=torch.bool).tril(past)  # each sees itself and everything before it
    return Places(positions, mask.expand(len(lengths), -1, -1))


class ScoresOnly:
    """A part of the language models that draw nothing by themselves."""

    @property
    def stops(self) -> bool:
        """No."""
        return False

    def ahead(self, rows: int) -> int:
        """None, for any number of rows."""
        return 0

    def chain(self, *args: Any, **options: Any) -> Continuation:
        """Never called, since `ahead` is 0."""
        raise NotImplementedError
