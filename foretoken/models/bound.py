"""A small net that was trained for one model and is useless beside another: weights, binding and card in one file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from foretoken.errors import ModelError


class BoundNet(nn.Module):
    """A net in a safetensors file, bound to the model it was trained on by the fingerprint of that model's weights.

    Attributes:
        shape: its size, a dataclass.
        model: fingerprint of the model.
        card: how it was trained and what it is worth.
        title: what it is called in messages.
        role: what the model is: "draft" or "target".
        command: how it is trained.
        instead: what to do without one.
    """

    title: ClassVar[str]
    role: ClassVar[str]
    command: ClassVar[str]
    instead: ClassVar[str]
    file_name: ClassVar[str]
    Shape: ClassVar[type[Any]]

    def __init__(self, shape: Any, model: str = "", card: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.shape, self.model, self.card = shape, model, card or {}

    def added_tokens(self) -> Tensor | None:
        """[E, H] float or None. Rows that the model's input embedding needs beyond its own."""
        return None

    def save(self, path: Path) -> None:
        """Write weights and card to a safetensors file, and the card once more beside it, for people."""
        about = {"shape": asdict(self.shape), self.role: self.model, "card": self.card}
        save_file(self.state_dict(), path, metadata={_key(self): json.dumps(about)})
        path.with_suffix(".card.json").write_text(json.dumps(self.card, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path, model: str) -> Self:
        """Read one.

        Args:
            path: file written by `save`.
            model: fingerprint of the model it will be used with.

        Raises:
            ModelError: the file is missing or broken, or belongs to another model.
        """
        if not path.is_file():
            raise ModelError(
                f"there is no {cls.title} at `{path}`", hint=f"train one with `{cls.command}`, or {cls.instead}"
            )
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})[_key(cls)])
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            made = cls(cls.Shape(**about["shape"]), about[cls.role], about["card"])
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise ModelError(f"`{path}` is no {cls.title}: {error}", hint="train it again") from error
        if made.model != model:
            raise ModelError(
                f"the {cls.title} `{path}` was trained for another {cls.role} model",
                hint=f"it knows what one model's numbers mean; train one for this {cls.role}",
            )
        made.load_state_dict(weights)
        return made.eval().requires_grad_(False)


def _key(of: BoundNet | type[BoundNet]) -> str:
    """Where the file's metadata has everything but the weights."""
    return of.file_name.partition(".")[0]
