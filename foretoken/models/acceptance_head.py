"""The acceptance-prediction head of SpecDec++: a draft's hidden state -> chance that the target keeps the token."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from foretoken.errors import ModelError

CARD_NAME = "acceptance_head.card.json"  # the same card as in the file, for people


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


class AcceptanceHead(nn.Module):
    """Residual blocks z <- z + SiLU(W z + b), then one logit; Platt scaling makes it a calibrated probability.

    It reads the last hidden state at the position whose *input* is the token in question. Bound to the draft it was
    trained on, since another draft's states mean nothing to it.

    Reference: Huang, Guo and Wang 2024, SpecDec++, https://arxiv.org/abs/2405.19715. The paper's two output logits are
    one here, the same function with half the weights.
    """

    file_name: ClassVar[str] = "acceptance_head.safetensors"
    scale: Tensor
    shift: Tensor

    def __init__(self, shape: HeadShape, draft: str = "", card: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.shape, self.draft, self.card = shape, draft, card or {}
        count = min(shape.depth, 1) if shape.tied else shape.depth
        self.blocks = nn.ModuleList(nn.Linear(shape.hidden_size, shape.hidden_size) for _ in range(count))
        self.out = nn.Linear(shape.hidden_size, 1)
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("shift", torch.zeros(()))

    def logit(self, hidden: Tensor) -> Tensor:
        """Uncalibrated log-odds of acceptance.

        Args:
            hidden: [..., H] float. Last hidden states.

        Returns:
            [...] float32.
        """
        state = hidden.float()
        for step in range(self.shape.depth):
            block = self.blocks[0 if self.shape.tied else step]
            state = state + nn.functional.silu(block(state))
        logit: Tensor = self.out(state).squeeze(-1)
        return logit

    def forward(self, hidden: Tensor) -> Tensor:
        """Calibrated probability of acceptance ([..., H] float -> [...] float32)."""
        return torch.sigmoid(self.scale * self.logit(hidden) + self.shift)

    def save(self, path: Path) -> None:
        """Write weights and card to a safetensors file."""
        about = {"shape": asdict(self.shape), "draft": self.draft, "card": self.card}
        save_file(self.state_dict(), path, metadata={"acceptance_head": json.dumps(about)})

    @classmethod
    def load(cls, path: Path, draft: str) -> AcceptanceHead:
        """Read a head.

        Args:
            path: file written by `save`.
            draft: fingerprint of the draft it will read.

        Raises:
            ModelError: the file is missing or broken, or the head belongs to another draft.
        """
        if not path.is_file():
            raise ModelError(
                f"there is no acceptance head at `{path}`",
                hint="train one with `foretoken train acceptance-head`, or choose another `--length`",
            )
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["acceptance_head"])
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, KeyError, ValueError) as error:
            raise ModelError(f"`{path}` is no acceptance head: {error}", hint="train it again") from error
        if about["draft"] != draft:
            raise ModelError(
                f"the acceptance head `{path}` was trained for another draft model",
                hint="a head reads the hidden states of one draft only; train one for this draft",
            )
        head = cls(HeadShape(**about["shape"]), about["draft"], about["card"])
        head.load_state_dict(weights)
        return head.eval().requires_grad_(False)
