"""The acceptance-prediction head of SpecDec++: a draft's hidden state -> chance that the target keeps the token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from foretoken.models.predictor import AcceptancePredictor


@dataclass(frozen=True, slots=True)
class HeadShape:
    """Size of a head.

    Attributes:
        hidden_size: width of the draft's hidden state.
        depth: residual blocks; 0 is a linear probe.
        tied: all blocks share one set of weights, as in the authors' released code.
    """

    hidden_size: int
    depth: int = 3
    tied: bool = False


class AcceptanceHead(AcceptancePredictor):
    """Residual blocks z <- z + SiLU(W z + b), then one logit.

    It reads the last hidden state at the position whose *input* is the token in question.

    Reference: Huang, Guo and Wang 2024, SpecDec++, https://arxiv.org/abs/2405.19715. The paper's two output logits are
    one here, the same function with half the weights.
    """

    title: ClassVar[str] = "acceptance head"
    command: ClassVar[str] = "foretoken train acceptance-head"
    file_name: ClassVar[str] = "acceptance_head.safetensors"
    Shape: ClassVar[type[HeadShape]] = HeadShape

    def __init__(self, shape: HeadShape, draft: str = "", card: dict[str, Any] | None = None) -> None:
        super().__init__(shape, draft, card)
        count = min(shape.depth, 1) if shape.tied else shape.depth
        self.blocks = nn.ModuleList(nn.Linear(shape.hidden_size, shape.hidden_size) for _ in range(count))
        self.out = nn.Linear(shape.hidden_size, 1)

    def logit(self, features: Tensor) -> Tensor:
        state = features.float()
        for step in range(self.shape.depth):
            block = self.blocks[0 if self.shape.tied else step]
            state = state + nn.functional.silu(block(state))
        logit: Tensor = self.out(state).squeeze(-1)
        return logit
