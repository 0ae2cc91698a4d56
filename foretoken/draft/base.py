"""Station 2: propose a token tree per row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from foretoken.costs import Costs
from foretoken.draft.ahead import draft_ahead
from foretoken.host import to_device, to_host
from foretoken.length.base import LengthPolicy, Trained
from foretoken.rng import check_usable
from foretoken.sampling import PathOf, distribution
from foretoken.shape.base import TreeShape
from foretoken.types import Batch, Draft, Drawn, Frontier, Row, Scores, Verdict

AT_ONCE = 3  # tokens drawn together on a device that is dear to wait for, wanted or not


class Drafter(ABC):
    """Proposes tokens. Whatever it proposes, the output stays the target's; only the speed depends on it.

    Attributes:
        drawn: how siblings are chosen, which the acceptance rule must be able to judge.
        provides: what length policies may ask for: "logits", "hidden".
        max_children: the widest tree it can draw.
        uses_model: whether it runs a draft model of its own.
        trained: what was trained for the target and drafts inside it; None for drafters that need nothing of the kind.
        reads_target: whether it builds on the target's hidden states, those of the prompt included.
        drafts: whether it ever proposes anything.
    """

    drawn: ClassVar[Drawn]
    provides: ClassVar[frozenset[str]] = frozenset()
    max_children: ClassVar[int] = 1
    uses_model: ClassVar[bool] = False
    trained: ClassVar[type[Trained] | None] = None
    reads_target: ClassVar[bool] = False
    drafts: ClassVar[bool] = True

    @dataclass(frozen=True, slots=True)
    class Config:
        """No options."""

    def __init__(self, config: Config | None = None, model: Any = None) -> None:  # noqa: B027
        """A drafter with its options, and its draft model, or what was trained for the target, if it has one."""

    def start(self, rows: list[Row], hidden: list[Tensor | None]) -> None:  # noqa: B027 - most keep nothing per row
        """Rows join at the end of the batch.

        Args:
            rows: the rows.
            hidden: per row [n, H] float, the target's last hidden states of the prompt's tokens but the last; None
                where there are none, or the drafter does not read them.
        """

    @abstractmethod
    def draft(self, batch: Batch, length: LengthPolicy, shape: TreeShape, max_nodes: int) -> Draft:
        """Propose a tree per row, at most `row.room` deep and `max_nodes` large, root included."""

    def observe(self, batch: Batch, draft: Draft, verdict: Verdict, scores: Scores) -> None:  # noqa: B027
        """Learn from a finished step; called after its tokens were committed and before finished rows leave."""

    def release(self, rows: Iterable[int]) -> None:  # noqa: B027
        """Rows leave; the others move as `swap_remove` says."""

    def priced(self, costs: Costs) -> Costs:
        """What a step costs with this drafter, for one that needs more or less than a forward per drafted token."""
        return costs


@dataclass(frozen=True, slots=True)
class Candidate:
    """The next token of each row.

    Attributes:
        token: [B] int64.
        prob: [B, 1] float. The drafter's own probability of it, before any sampling parameter.
        q: [B, V] float or None. What it was drawn from; None where it is a point mass.
        scores: behind it, of one node per row.
        peeked: whether the random number it took is still to be spent.
    """

    token: Tensor
    prob: Tensor
    q: Tensor | None
    scores: Scores
    peeked: bool = False


def last(scores: Scores) -> Scores:
    """Those of each row's last node alone."""
    return Scores(scores.logits[:, -1:], None if scores.hidden is None else scores.hidden[:, -1:])


class ChainDrafter(Drafter):
    """Draws a chain token by token from laws of its own, until the length policy stops it.

    A request's sampling parameters apply to the drafter's scores as well (penalties follow the drafted path), which is
    what makes acceptance likely; exactness does not depend on it. The law `q` of every draw is kept, unless every row
    takes the likeliest token, which is a point mass.

    Attributes:
        temperature: of the draft; None takes each request's own.
    """

    drawn: ClassVar[Drawn] = Drawn.IID
    provides: ClassVar[frozenset[str]] = frozenset({"logits"})
    temperature: float | None = None

    @abstractmethod
    def limits(self, batch: Batch) -> list[int]:
        """How deep each row can be drafted, whatever room it has."""

    @abstractmethod
    def score(self, batch: Batch, tokens: list[Tensor]) -> Scores:
        """Score what follows the newest token of each row.

        Args:
            batch: the rows.
            tokens: the roots and what was drafted below them, depth by depth, [B] int64 each; meaningless in rows that
                draft no more.

        Returns:
            Scores of one node per row, [B, 1, V].
        """

    def forwards(self, depth: int) -> int:
        """Draft forwards that `score` makes for the candidate at this depth (1 is the root's child)."""
        return 1

    def candidates(
        self, batch: Batch, tokens: list[Tensor], certain: bool, grow: Tensor, path_of: PathOf, likely: int
    ) -> list[Candidate]:
        """Draw the next token of each row; a drafter that gets several at once for less may draw more.

        Args:
            batch: the rows.
            tokens: as `score` takes them.
            certain: whether every row takes the likeliest token.
            grow: [B] bool, on the CPU. Rows that draft on; the others spend no randomness.
            path_of: as `distribution` takes it.
            likely: how many may be wanted; never more are drawn.

        Returns:
            One or more, depth by depth.
        """
        scores = self.score(batch, tokens)
        own = scores.logits[:, -1]  # [B, V]
        if certain:
            prob, token = own.softmax(1).max(1)
            return [Candidate(token, prob[:, None], None, last(scores))]
        q = distribution(scores.logits, batch.rows, path_of, self.temperature)[:, 0]
        token = batch.draft_rng.pick(q, grow)
        return [Candidate(token, own.softmax(1).gather(1, token[:, None]), q, last(scores))]

    def draft(self, batch: Batch, length: LengthPolicy, shape: TreeShape, max_nodes: int) -> Draft:
        rows, device = batch.rows, batch.device
        room = [min(row.room, max_nodes - 1, most) for row, most in zip(rows, self.limits(batch), strict=True)]
        certain = all(row.request.sampling.greedy(self.temperature) for row in rows)
        if not (length.looks or device.type == "cpu" or any(row.request.sampling.edits for row in rows)):
            return draft_ahead(self, certain, batch, length, shape, room)
        tokens, laws, probs = [batch.roots], [], [torch.ones(len(rows), 1)]
        # Decisions are kept as lists: on a CPU every operation on a tensor takes microseconds, of one number as well.
        paths: list[list[int]] = [[] for _ in rows]
        forwards, going = [0] * len(rows), [most > 0 for most in room]
        depth = torch.zeros(len(rows), 1, dtype=torch.int64)
        frontier = Frontier(depth, probs[0], None, None, torch.tensor(going)[:, None])
        ready: list[tuple[Candidate, Tensor, Tensor]] = []  # drawn, but not looked at yet; the next one last
        while any(going):
            wanted, children = length.grow(frontier, batch).tolist(), shape.children(frontier).tolist()
            growing = [
                one and grow and count > 0 for one, (grow,), (count,) in zip(going, wanted, children, strict=True)
            ]
            if not any(growing):
                break
            if not ready:
                likely = max(length.likely(batch, len(tokens) - 1), 1 if device.type == "cpu" else AT_ONCE)
                likely = min(likely, max(room) - len(tokens) + 1)
                drawn = self.candidates(batch, tokens, certain, torch.tensor(growing), lambda b, _: paths[b], likely)
                near = to_host(*(one.prob for one in drawn), *(one.token for one in drawn))
                ready = list(zip(drawn, near, near[len(drawn) :], strict=False))[::-1]
                cost = sum(self.forwards(len(tokens) + more) for more in range(len(ready)))
                forwards = [spent + cost * more for spent, more in zip(forwards, growing, strict=True)]
            one, prob, token = ready.pop()
            if one.peeked:
                batch.draft_rng.spend(growing)
            if one.q is not None:
                grow = torch.tensor(growing)[:, None]
                laws.append(one.q if all(growing) else one.q * grow.to(device, non_blocking=True))
            tokens.append(one.token)
            if certain:
                check_usable([one for (one,), more in zip(prob.tolist(), growing, strict=True) if more])
            probs.append(prob)
            for b, (chosen, drafting) in enumerate(zip(token.tolist(), growing, strict=True)):
                if drafting:
                    paths[b].append(chosen)
                # Nothing may follow an end-of-sequence token, so drafting stops there.
                going[b] = drafting and chosen not in rows[b].request.stop_token_ids and len(paths[b]) < room[b]
            known = len(tokens) - 1 + len(ready)
            active = torch.tensor(going)[:, None]
            frontier = Frontier(frontier.depth + 1, prob, one.scores.logits, one.scores.hidden, active, known)
        if not any(paths):
            return Draft.root_only(tokens[0], Drawn.IID)
        law = torch.stack([*laws, torch.zeros_like(laws[0])], 1) if laws else None
        return chain(batch, paths, law, torch.cat(probs, 1), forwards)


def chain(batch: Batch, paths: list[list[int]], q: Tensor | None, prob: Tensor, forwards: list[int]) -> Draft:
    """A chain per row.

    Args:
        batch: the rows.
        paths: what was drafted below the root of each.
        q: [B, N, V] float or None. None where every token is a point mass.
        prob: [B, N] float. As in `Draft`.
        forwards: as in `Draft`.
    """
    nodes = max(map(len, paths)) + 1
    tokens = [
        [row.tokens[-1], *path, *[0] * (nodes - 1 - len(path))] for row, path in zip(batch.rows, paths, strict=True)
    ]
    parents = [[max(i - 1, 0) if i <= len(path) else 0 for i in range(nodes)] for path in paths]
    sizes = [len(path) + 1 for path in paths]
    held = partial(to_device, device=batch.device)
    drawn = Drawn.POINT if q is None else Drawn.IID
    return Draft(held(tokens), held(parents), held(sizes), q, drawn, prob, held(forwards), chain=True)
