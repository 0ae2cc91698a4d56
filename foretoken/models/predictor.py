"""What is trained to predict acceptance for one draft: a small calibrated net in a file beside that draft."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from foretoken.errors import ModelError

TEMPERATURE = -1  # column of every predictor's features: what is accepted depends on it
HOTTEST = 2.0  # temperatures above are taken for this one


class AcceptancePredictor(nn.Module, ABC):
    """Features of a drafted token -> chance that the target keeps it; Platt scaling makes it a calibrated probability.

    Bound to the draft it was trained on, since another draft's features mean nothing to it.

    Attributes:
        shape: its size, a dataclass.
        draft: fingerprint of the draft.
        card: how it was trained and what it is worth.
        title: what it is called in messages.
        command: how it is trained.
    """

    title: ClassVar[str]
    command: ClassVar[str]
    file_name: ClassVar[str]
    Shape: ClassVar[type[Any]]
    scale: Tensor
    shift: Tensor

    def __init__(self, shape: Any, draft: str = "", card: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.shape, self.draft, self.card = shape, draft, card or {}
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("shift", torch.zeros(()))

    @abstractmethod
    def logit(self, features: Tensor) -> Tensor:
        """Uncalibrated log-odds of acceptance.

        Args:
            features: [..., D] float.

        Returns:
            [...] float32.
        """

    def forward(self, features: Tensor) -> Tensor:
        """Calibrated probability of acceptance ([..., D] float -> [...] float32)."""
        return torch.sigmoid(torch.addcmul(self.shift, self.scale, self.logit(features)))

    @staticmethod
    def heat(temperature: Tensor) -> Tensor:
        """The temperature as a predictor sees it ([...] float -> [...] float32)."""
        return temperature.float().clamp_max(HOTTEST)

    def save(self, path: Path) -> None:
        """Write weights and card to a safetensors file, and the card once more beside it, for people."""
        about = {"shape": asdict(self.shape), "draft": self.draft, "card": self.card}
        save_file(self.state_dict(), path, metadata={_key(self): json.dumps(about)})
        path.with_suffix(".card.json").write_text(json.dumps(self.card, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path, draft: str) -> Self:
        """Read one.

        Args:
            path: file written by `save`.
            draft: fingerprint of the draft it will be used with.

        Raises:
            ModelError: the file is missing or broken, or belongs to another draft.
        """
        if not path.is_file():
            raise ModelError(
                f"there is no {cls.title} at `{path}`",
                hint=f"train one with `{cls.command}`, or choose another `--length`",
            )
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})[_key(cls)])
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, KeyError, ValueError) as error:
            raise ModelError(f"`{path}` is no {cls.title}: {error}", hint="train it again") from error
        if about["draft"] != draft:
            raise ModelError(
                f"the {cls.title} `{path}` was trained for another draft model",
                hint="it knows what one draft's numbers mean; train one for this draft",
            )
        made = cls(cls.Shape(**about["shape"]), about["draft"], about["card"])
        made.load_state_dict(weights)
        return made.eval().requires_grad_(False)


def _key(of: AcceptancePredictor | type[AcceptancePredictor]) -> str:
    """Where the file's metadata has everything but the weights."""
    return of.file_name.partition(".")[0]
