"""Everything that travels between the stations. Read this file first.

Axes, the same letter everywhere: B rows, N nodes with root, F frontier nodes, A accepted (padded), T cached tokens,
V vocabulary, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from foretoken.host import to_device, to_host, whole
from foretoken.request import Request

if TYPE_CHECKING:
    from foretoken.costs import Costs
    from foretoken.models.base import KVCache
    from foretoken.rng import Rng
    from foretoken.tokenizer import TextPieces


class Drawn(Enum):
    """How sibling tokens were chosen, which decides which acceptance test is exact."""

    POINT = "point"  # deterministically (top-k, look-up): a point mass per child
    IID = "iid"  # independent draws from q, repeats possible; a drafter of these may hand on point masses as POINT
    DISTINCT = "distinct"  # draws from q without replacement, in draw order


class Origin(Enum):
    """Where an emitted token came from."""

    ACCEPTED = "accepted"  # drafted, and kept by the acceptance rule
    RECOVERED = "recovered"  # drawn from the residual after a rejection
    BONUS = "bonus"  # drawn from the target after everything drafted was accepted (or nothing was drafted)


class FinishReason(Enum):
    """Why a request ended."""

    STOP = "stop"  # end-of-sequence, a stop token or a stop string
    LENGTH = "length"  # max_new_tokens or the context limit
    CANCELLED = "cancelled"


@dataclass(slots=True)
class Counts:
    """What happened to one request. Everything published is computed from these (see `metrics.py`).

    Attributes:
        num_tokens: emitted tokens.
        num_target_forwards: verification forwards the request took part in, prefill excluded.
        num_draft_forwards: draft forwards made while the request was drafting.
        num_drafted: drafted nodes sent to verification.
        num_tested: nodes the acceptance rule looked at.
        num_accepted: drafted nodes that were emitted.
        num_cut: final steps whose recovered or bonus token was not emitted, because a stop came first (0 or 1).
    """

    num_tokens: int = 0
    num_target_forwards: int = 0
    num_draft_forwards: int = 0
    num_drafted: int = 0
    num_tested: int = 0
    num_accepted: int = 0
    num_cut: int = 0


@dataclass(slots=True, eq=False)
class Row:
    """A request while it runs: one row of every batch tensor. Only `commit` writes `tokens`, `finish` and `counts`.

    Attributes:
        tokens: prompt and emitted ids; the last one is the root of the next draft.
        capacity: tokens the row may hold in all, set by max_new_tokens and the context limit.
        memory: what a method remembers about this request, under a key of its own; gone with the row.
    """

    id: int
    request: Request
    text: TextPieces
    capacity: int
    tokens: list[int]
    counts: Counts = field(default_factory=Counts)
    finish: FinishReason | None = None
    memory: dict[object, Any] = field(default_factory=dict)

    @property
    def output(self) -> list[int]:
        """Emitted ids so far."""
        return self.tokens[len(self.request.prompt) :]

    @property
    def room(self) -> int:
        """How many tokens may be drafted now so that the recovered or bonus token still fits."""
        return self.capacity - len(self.tokens) - 1


@dataclass(slots=True, eq=False)
class Batch:
    """The rows in flight, in the order of every tensor's first axis, and the target's cache of them.

    Attributes:
        draft_rng: random numbers for choosing draft tokens.
        accept_rng: random numbers for accepting them; a stream of its own, or the two choices would be correlated.
        device: where drafts, scores and verdicts live.
        costs: what a step costs, for policies that decide by speed.
        coupled: whether the drafter draws by the numbers that the target draws by (see `Race`).
    """

    rows: list[Row]
    cache: KVCache
    draft_rng: Rng
    accept_rng: Rng
    device: torch.device
    costs: Costs
    coupled: bool = False

    @property
    def roots(self) -> Tensor:
        """[B] int64, on the CPU. Last committed token of each row."""
        return whole([row.tokens[-1] for row in self.rows])


@dataclass(frozen=True, slots=True)
class Draft:
    """A token tree per row. A chain is the tree in which every node has at most one child.

    Node 0 is the root: the last committed token, whose keys are not in the cache yet. Parents come before children.
    All but the law is on the CPU where it was known there; tokens that nobody has looked at yet are where they were
    drawn.

    Attributes:
        tokens: [B, N] int64. Token at each node; 0 in padding.
        parents: [B, N] int64. Parent of each node; 0 for the root and in padding.
        sizes: per row. Nodes in use, root included.
        q: [B, N, V] float or None. What the drafter says follows node i, zero where nothing was drawn; None when
            `drawn` is POINT.
        drawn: how children were chosen.
        prob: per row, by node. The drafter's own probability of each token before any sampling parameter (1 at the
            root), which tells how sure it was even where `q` is a point mass; meaningless beyond the row's size. None
            for drafters without one, and where nobody has looked at the tokens.
        num_forwards: per row. Draft forwards spent.
        along: what the target reads beside the nodes, or None.
        chain: whether it is known that in every row each node in use has the one before it as its parent.
        points: rows whose tokens are point masses, though others' are not and all have a `q`; None where there is none.
        unseen: what a device decided where nobody has looked yet; `sizes` and `num_forwards` are upper bounds then.
    """

    tokens: Tensor
    parents: Tensor
    sizes: Sequence[int]
    q: Tensor | None
    drawn: Drawn
    prob: Sequence[Sequence[float]] | None
    num_forwards: Sequence[int]
    along: Along | None = None
    chain: bool = False
    points: Sequence[bool] | None = None
    unseen: Unseen | None = None

    @property
    def num_read(self) -> int:
        """Tokens the target reads, all rows together."""
        return self.tokens.numel() + (self.along.tokens.numel() if self.along else 0)

    @property
    def nodes(self) -> Tensor:
        """[B, N] bool. True where a node is in use."""
        there = self.tokens.device
        return torch.arange(self.tokens.shape[1], device=there) < to_device(self.sizes, there)[:, None]

    @property
    def drafted(self) -> Tensor:
        """[B, 1] int64. Nodes of each row below the root, on the device where only that knows."""
        return torch.tensor(self.sizes)[:, None] - 1 if self.unseen is None else self.unseen.drafted[:, None]

    def near(self, *more: Tensor) -> tuple[Draft, Sequence[Tensor]]:
        """All that is small, and more, on the CPU: brought there at once, since each look waits for the device."""
        if self.unseen is not None:
            tokens, drafted, prob, *here = to_host(self.tokens, *self.unseen, *more)
            return self._seen(tokens, drafted.tolist(), prob.tolist()), here
        if self.tokens.device.type == "cpu":
            return self, to_host(*more)
        tokens, *here = to_host(self.tokens, *more)
        return replace(self, tokens=tokens), here

    def _seen(self, tokens: Tensor, drafted: list[int], prob: list[list[float]]) -> Draft:
        """The same, now that somebody has looked at what `unseen` holds, on the CPU."""
        sizes = [count + 1 for count in drafted]
        parents = chained(*sizes, least=tokens.shape[1])
        whole = [[1.0, *row] for row in prob]
        return replace(self, tokens=tokens, parents=parents, sizes=sizes, prob=whole, num_forwards=drafted, unseen=None)

    def at(self, device: torch.device) -> Draft:
        """What rules look at, on the device of the laws."""
        if device.type == "cpu":
            return self
        tokens, parents = (one.to(device, non_blocking=True) for one in (self.tokens, self.parents))
        return replace(self, tokens=tokens, parents=parents)

    @classmethod
    def root_only(cls, roots: Tensor, drawn: Drawn = Drawn.POINT) -> Draft:
        """A draft without candidates: plain decoding.

        Args:
            roots: [B] int64. Last committed token of each row.
        """
        rows = len(roots)
        sizes, none = [1] * rows, [0] * rows
        return cls(roots[:, None], chained(*sizes), sizes, None, drawn, None, none, chain=True)


class Unseen(NamedTuple):
    """What a device decided about chains by itself (see `Stop`).

    Attributes:
        drafted: [B] int64. Nodes of each row below the root.
        prob: [B, N-1] float. As `Draft.prob`, without the root.
    """

    drafted: Tensor
    prob: Tensor


@lru_cache(256)
def chained(*sizes: int, least: int = 1) -> Tensor:
    """[B, N] int64, on the CPU. Parents of chains of so many nodes, roots included; nobody may write to it.

    N is `least` where no chain is as long.
    """
    nodes = range(max(*sizes, least))
    return torch.tensor([[max(i - 1, 0) if i < size else 0 for i in nodes] for size in sizes])


@dataclass(frozen=True, slots=True)
class Along:
    """Tokens the target reads along with a draft, for the drafter's own use: no candidates, and no candidate sees them.

    They are numbered on from the draft's N nodes, and so are their scores.

    Attributes:
        tokens: [B, R] int64. They need not be of the vocabulary.
        parents: [B, R] int64. Node each one follows: of the draft, or an earlier one of these.
    """

    tokens: Tensor
    parents: Tensor


@dataclass(frozen=True, slots=True)
class Frontier:
    """What a length policy may look at: leaves of the draft, before any child of theirs is drawn.

    The leaf's own token is drawn but not read by the drafter yet, so going deeper costs one draft forward. What the
    drafter said of it comes from the forward that produced it, which is the one that read the leaf's parent.

    Decisions are made about single numbers, and on a CPU every operation on a tensor of one number takes as long as
    dozens on the number itself, so numbers are kept as such, per row and leaf.

    Attributes:
        depth: by row and leaf. 0 is the root.
        prob: by row and leaf. The drafter's own probability of the leaf's token (see `Draft.prob`), 1 at the root.
        active: by row and leaf. False in padding and where a row may not go deeper.
        drawn: what the drafter said of the leaves' tokens, if they are not roots.
        at: which token of `drawn` the first leaf is; the others follow.
        ready: depth down to which tokens are drawn already, so that drawing them costs nothing more.
        sure: per row. `prob` of the tokens before the leaf that were taken unasked (see `LengthPolicy.plan`), since
            it was asked last.
    """

    depth: Sequence[Sequence[int]]
    prob: Sequence[Sequence[float]]
    active: Sequence[Sequence[bool]]
    drawn: Continuation | None = None
    at: int = 0
    ready: int = 0
    sure: Sequence[Sequence[float]] | None = None

    @property
    def logits(self) -> Tensor | None:
        """[B, F, V] float or None. What the leaf's token was drawn from, before sampling parameters."""
        return self._of(None if self.drawn is None else self.drawn.logits)

    @property
    def hidden(self) -> Tensor | None:
        """[B, F, H] float or None. The drafter's last hidden state behind `logits`."""
        return self._of(None if self.drawn is None else self.drawn.hidden)

    @property
    def seen(self) -> Tensor | None:
        """[B, F, R] float or None. What `LengthPolicy.look` found where the leaf's token was drawn, if anything."""
        return self._of(None if self.drawn is None else self.drawn.seen)

    def _of(self, said: Tensor | None) -> Tensor | None:
        return None if said is None else said[:, self.at : self.at + len(self.depth[0])]


@dataclass(frozen=True, slots=True)
class Scores:
    """What one forward of a language model returns.

    Attributes:
        logits: [B, N, V] float32 or float64. Entry i scores what follows node i.
        hidden: [B, N, H] float or None. Last hidden state, as the output embedding reads it.
    """

    logits: Tensor
    hidden: Tensor | None


@dataclass(frozen=True, slots=True)
class Continuation:
    """Tokens that a language model drew by itself, one after the other, and what it said of each.

    Attributes:
        tokens: [B, K] int64.
        prob: [B, K] float. The model's own probability of each token, before any sampling parameter.
        logits: [B, K, V] float32 or float64, or None. What scored each token.
        hidden: [B, K, H] float or None. Last hidden state behind `logits`.
        q: [B, K, V] float or None. The law that each token was drawn from; None where it is a point mass.
        seen: [B, K, R] float or None, on the CPU. What `LengthPolicy.look` made of them.
        wanted: [B] int64 or None. How many of each row a rule let be drawn; the others, if there are any, mean nothing.
    """

    tokens: Tensor
    prob: Tensor
    logits: Tensor | None
    hidden: Tensor | None
    q: Tensor | None
    seen: Tensor | None = None
    wanted: Tensor | None = None

    def near(self, look: Callable[[Continuation], Tensor | None] | None) -> Continuation:
        """Tokens, `prob` and what `look` makes of them on the CPU, in one copy; as it is if they are there.

        Args:
            look: as in `LanguageModel.chain`; None on a CPU.
        """
        if look is None or self.tokens.device.type == "cpu":
            return self
        seen = look(self)
        tokens, prob, *more = to_host(self.tokens, self.prob, *([] if seen is None else [seen]))
        return replace(self, tokens=tokens, prob=prob, seen=more[0] if more else None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an acceptance rule decided.

    An *accepted* token was drafted and kept. A *recovered* token is drawn after a rejection, a *bonus* token after a
    whole path was accepted. A step emits the accepted tokens and exactly one recovered or bonus token.

    Attributes:
        path: per row. Accepted nodes below the root, in order.
        tested: per row. How many nodes the rule looked at.
        next_token: per row. Recovered token after a rejection, bonus token otherwise.
        recovered: per row. Whether `next_token` is a recovered token.
    """

    path: Sequence[Sequence[int]]
    tested: Sequence[int]
    next_token: Sequence[int]
    recovered: Sequence[bool]

    @property
    def counts(self) -> list[int]:
        """Accepted nodes per row."""
        return [len(nodes) for nodes in self.path]


@dataclass(frozen=True, slots=True)
class Committed:
    """Tokens one row gained in one step.

    Attributes:
        tokens: emitted ids, in order.
        origins: where each came from.
        nodes: draft node whose scores chose each token.
    """

    row: Row
    tokens: list[int]
    origins: list[Origin]
    nodes: list[int]


@dataclass(frozen=True, slots=True)
class Logprob:
    """Log-probabilities of one emitted token under the target's unprocessed distribution.

    Attributes:
        chosen: natural log-probability of the emitted token.
        top: the most likely tokens and their log-probabilities, best first.
    """

    chosen: float
    top: list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """What a request gained in one step, as it is streamed.

    Attributes:
        id: the row's id.
        tokens: emitted ids.
        text: text that is final; never a part of a character, never past a stop string.
        origins: where each token came from.
        logprobs: one entry per token, or None when not asked for.
        finish: set on the last event of a request.
    """

    id: int
    tokens: list[int]
    text: str
    origins: list[Origin]
    logprobs: list[Logprob] | None
    finish: FinishReason | None


def swap_remove(count: int, gone: Iterable[int]) -> list[tuple[int, int]]:
    """Moves that close the gaps left by removed rows, each copying a surviving row from the end into a gap.

    Batch rows, target cache and draft cache all follow these moves, so their first axes stay aligned.

    Returns:
        Pairs (to, from) of row indices, with `to` removed and `from` beyond the surviving count.

    Example:
        >>> swap_remove(5, [1, 3])
        [(1, 4)]
    """
    removed = set(gone)
    left = count - len(removed)
    tail = [index for index in range(left, count) if index not in removed]
    return list(zip(sorted(index for index in removed if index < left), tail, strict=True))
