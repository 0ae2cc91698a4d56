"""Station 2: propose a token tree per row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from foretoken.costs import Costs
from foretoken.length.base import LengthPolicy, Trained
from foretoken.sampling import distribution
from foretoken.shape.base import TreeShape
from foretoken.types import Batch, Draft, Drawn, Frontier, Row, Scores, Verdict


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


class ChainDrafter(Drafter):
    """Draws a chain token by token from laws of its own, until the length policy stops it.

    A request's sampling parameters apply to the drafter's scores as well (penalties follow the drafted path), which is
    what makes acceptance likely; exactness does not depend on it. The law `q` of every draw is kept.

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

    def draft(self, batch: Batch, length: LengthPolicy, shape: TreeShape, max_nodes: int) -> Draft:
        rows, roots = batch.rows, batch.roots
        limit = [min(row.room, max_nodes - 1, most) for row, most in zip(rows, self.limits(batch), strict=True)]
        room = torch.tensor(limit, device=roots.device)  # [B]
        sure = torch.ones(len(rows), 1, device=roots.device)
        frontier = Frontier(torch.zeros_like(roots)[:, None], sure, None, None, (room > 0)[:, None])
        tokens, laws, probs, forwards = [roots], [], [sure], torch.zeros_like(roots)
        paths: list[list[int]] = [[] for _ in rows]
        while (grow := _grows(frontier, batch, length, shape)).any():
            scores = self.score(batch, tokens)
            forwards += grow * self.forwards(len(tokens))
            q = distribution(scores.logits, rows, lambda b, _: paths[b], self.temperature)[:, 0]  # [B, V]
            token = batch.draft_rng.pick(q, grow)
            tokens.append(token)
            laws.append(q * grow[:, None])
            ended = []
            for b, (drawn, drafting) in enumerate(zip(token.tolist(), grow.tolist(), strict=True)):
                if drafting:
                    paths[b].append(drawn)
                # Nothing may follow an end-of-sequence token, so drafting stops there.
                ended.append(drawn in rows[b].request.stop_token_ids)
            active = grow & (len(tokens) - 1 < room) & ~torch.tensor(ended, device=roots.device)
            own = scores.logits[:, -1]
            probs.append((own.gather(1, token[:, None]) - own.logsumexp(1, keepdim=True)).exp())
            hidden = None if scores.hidden is None else scores.hidden[:, -1:]
            frontier = Frontier(frontier.depth + 1, probs[-1], own[:, None], hidden, active[:, None])
        drafted = torch.tensor([len(path) for path in paths], device=roots.device)
        return _chain(tokens, laws, probs, drafted, forwards)


def _grows(frontier: Frontier, batch: Batch, length: LengthPolicy, shape: TreeShape) -> Tensor:
    """[B] bool. Which rows draw one more token."""
    if not bool(frontier.active.any()):
        return frontier.active[:, 0]
    grow = frontier.active & length.grow(frontier, batch) & (shape.children(frontier) > 0)
    return grow[:, 0]


def _chain(tokens: list[Tensor], laws: list[Tensor], probs: list[Tensor], drafted: Tensor, forwards: Tensor) -> Draft:
    """Stack what was drawn per depth into a chain per row."""
    if not laws:
        return Draft.root_only(tokens[0], Drawn.IID)
    stacked = torch.stack(tokens, 1)
    steps = torch.arange(stacked.shape[1], device=stacked.device)
    used = steps <= drafted[:, None]
    q = torch.stack([*laws, torch.zeros_like(laws[0])], 1)
    parents = (steps - 1).clamp_min(0) * used
    return Draft(stacked * used, parents, drafted + 1, q, Drawn.IID, torch.cat(probs, 1), forwards)
