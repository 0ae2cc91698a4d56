"""The target drafts for itself, by reading look-ahead tokens along with what it verifies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from foretoken.costs import Costs, ScaledCosts
from foretoken.draft.base import ChainDrafter
from foretoken.errors import ConfigError
from foretoken.length.base import LengthPolicy, Trained
from foretoken.models.lookahead import LookAhead
from foretoken.shape.base import TreeShape
from foretoken.types import Along, Batch, Draft, Scores, Verdict


class Pass(ChainDrafter):
    """Read look-ahead tokens behind every node; those behind the last accepted one are the next draft's laws.

    The first stands in for the token that is drawn after the node, which nobody knows yet, and makes the target say
    what comes after that one; the second stands one place further, and so on. Look-ahead tokens see their node, the
    text before it and the look-ahead tokens before them. No candidate sees them, and their keys and values are dropped
    with those of rejected candidates. A text's first step drafts nothing.

    Reference: Monea, Joulin and Grave 2023, PaSS, https://arxiv.org/abs/2311.13581. Cost per step: `ahead` more tokens
    read by the target per node. The paper makes a second target call to draft; here drafting rides on verification.
    """

    trained: ClassVar[type[Trained]] = LookAhead

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options.

        Attributes:
            file: what `foretoken train pass` wrote for the target.
            ahead: look-ahead tokens per node; none takes all that were trained.
        """

        file: str | None = None
        ahead: int | None = None

        def __post_init__(self) -> None:
            if self.ahead is not None and self.ahead < 1:
                raise ConfigError(f"ahead cannot be {self.ahead}", hint="1 reads one look-ahead token per node")

    def __init__(self, config: Config | None = None, net: LookAhead | None = None) -> None:
        if net is None:
            raise ConfigError("the drafter `pass` needs trained embeddings", hint="give them as `pass:FILE`")
        ahead = (config or self.Config()).ahead
        self._first = net.shape.first
        self._ahead = net.shape.count if ahead is None else min(ahead, net.shape.count)

    def priced(self, costs: Costs) -> Costs:
        return ScaledCosts(costs, block=0, reads=1 + self._ahead)

    def forwards(self, depth: int) -> int:
        return 0

    def limits(self, batch: Batch) -> list[int]:
        return [self._ahead if self in row.memory else 0 for row in batch.rows]

    def score(self, batch: Batch, tokens: list[Tensor]) -> Scores:
        laws = [row.memory.get(self) for row in batch.rows]
        like = next(law for law in laws if law is not None)
        place = len(tokens) - 1
        return Scores(torch.stack([like[0] if law is None else law[place] for law in laws])[:, None], None)

    def draft(self, batch: Batch, length: LengthPolicy, shape: TreeShape, max_nodes: int) -> Draft:
        drafted = super().draft(batch, length, shape, max(max_nodes // (1 + self._ahead), 1))
        rows, nodes = drafted.tokens.shape
        place = torch.arange(self._ahead)  # of a look-ahead token behind its node
        node = torch.arange(nodes)[:, None]
        number = nodes + node * self._ahead + place  # [N, E]
        parents = torch.where(place == 0, node, number - 1).reshape(1, -1).expand(rows, -1)
        tokens = (self._first + place).repeat(rows, nodes)
        return replace(drafted, along=Along(tokens, parents))

    def observe(self, batch: Batch, draft: Draft, verdict: Verdict, scores: Scores) -> None:
        for b, (row, path) in enumerate(zip(batch.rows, verdict.path, strict=True)):
            if draft.along is None:  # the step was decoded plainly
                row.memory.pop(self, None)
                continue
            last = path[-1] if path else 0
            begin = draft.tokens.shape[1] + last * self._ahead
            row.memory[self] = scores.logits[b, begin : begin + self._ahead].clone()
