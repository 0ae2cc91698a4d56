"""Station 2: propose a token tree per row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from foretoken.length.base import LengthPolicy
from foretoken.models.base import LanguageModel
from foretoken.shape.base import TreeShape
from foretoken.types import Batch, Draft, Drawn, Row, Scores, Verdict


class Drafter(ABC):
    """Proposes tokens. Whatever it proposes, the output stays the target's; only the speed depends on it.

    Attributes:
        drawn: how siblings are chosen, which the acceptance rule must be able to judge.
        provides: what length policies may ask for: "logits", "hidden".
        max_children: the widest tree it can draw.
        uses_model: whether it runs a draft model of its own.
        drafts: whether it ever proposes anything.
    """

    drawn: ClassVar[Drawn]
    provides: ClassVar[frozenset[str]] = frozenset()
    max_children: ClassVar[int] = 1
    uses_model: ClassVar[bool] = False
    drafts: ClassVar[bool] = True

    @dataclass(frozen=True, slots=True)
    class Config:
        """No options."""

    def __init__(self, config: Config | None = None, model: LanguageModel | None = None) -> None:  # noqa: B027
        """A drafter with its options, and its draft model if it uses one."""

    def start(self, rows: list[Row]) -> None:  # noqa: B027 - most drafters keep nothing per row
        """Rows join at the end of the batch."""

    @abstractmethod
    def draft(self, batch: Batch, length: LengthPolicy, shape: TreeShape, max_nodes: int) -> Draft:
        """Propose a tree per row, at most `row.room` deep and `max_nodes` large, root included."""

    def observe(self, batch: Batch, draft: Draft, verdict: Verdict, scores: Scores) -> None:  # noqa: B027
        """Learn from a finished step; called after its tokens were committed and before finished rows leave."""

    def release(self, rows: Iterable[int]) -> None:  # noqa: B027
        """Rows leave; the others move as `swap_remove` says."""
