"""No drafting: plain decoding, on the same path as everything else."""

from __future__ import annotations

from typing import ClassVar

from foretoken.draft.base import Drafter
from foretoken.length.base import LengthPolicy
from foretoken.shape.base import TreeShape
from foretoken.types import Batch, Draft, Drawn


class NoDraft(Drafter):
    """A draft of the root alone, so each step is one ordinary decoding step.

    Cost per step: no forwards.
    """

    drawn: ClassVar[Drawn] = Drawn.POINT
    drafts: ClassVar[bool] = False
    # It never asks the length policy anything, so any policy suits it.
    provides: ClassVar[frozenset[str]] = frozenset({"prob", "logits", "hidden"})

    def draft(self, batch: Batch, length: LengthPolicy, shape: TreeShape, max_nodes: int) -> Draft:
        return Draft.root_only(batch.roots)
