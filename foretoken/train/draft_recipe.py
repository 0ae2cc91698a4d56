"""What makes a draft: where it starts, how it learns, and what it may cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from foretoken.errors import ConfigError
from foretoken.train.budget import Budget
from foretoken.train.imitation import SEQUENCE, Imitation

METHODS = ("scratch", "distill", "prune")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What makes a draft.

    Attributes:
        method: `scratch`, `distill` or `prune`: where it starts.
        budget: wall-clock time for all of it, or tokens that each of its stages reads.
        divergence, beta, on_policy, max_new_tokens: see `Imitation`; None is `ce` from scratch, else `fkl`.
        temperatures: that the target answers at, and that the draft is selected for.
        layers, width: of a draft from scratch; the layers to keep of a pruned one. None derives them from the target.
        ffn: share of the FFN channels that a pruned draft keeps.
        learning_rate: of learning from the target; None takes a share of what its width would take from scratch.
        interpolate: share of the weights that it started with in the result, see `interpolation`.
        seed: of everything random.
    """

    method: str = "distill"
    budget: Budget = field(default_factory=lambda: Budget(seconds=600.0))
    divergence: str | None = None
    beta: float = 0.5
    on_policy: float = 0.0
    max_new_tokens: int = 128
    temperatures: tuple[float, ...] = (0.0, 1.0)
    layers: int | None = None
    width: int | None = None
    ffn: float = 0.5
    learning_rate: float | None = None
    interpolate: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"unknown method `{self.method}`", hint=f"known: {', '.join(METHODS)}")
        if not self.temperatures or min(self.temperatures) < 0 or self.max_new_tokens < 1:
            raise ConfigError(
                "a recipe needs a temperature of 0 or more and answers of a token or more", hint="see --help"
            )
        if self.width is not None and (self.width < 32 or self.width % 32):
            raise ConfigError(f"option `--width` cannot be {self.width}", hint="it is a multiple of 32")
        if self.layers is not None and self.layers < 1:
            raise ConfigError(f"option `--layers` cannot be {self.layers}", hint="one is the least")
        if not 0 < self.ffn <= 1:
            raise ConfigError(
                f"option `--ffn` cannot be {self.ffn}", hint="it is the share of channels to keep, at most 1"
            )
        if not 0 <= self.interpolate <= 1:
            raise ConfigError(
                f"option `--interpolate` cannot be {self.interpolate}",
                hint="it is between 0, what was learnt, and 1, where it started",
            )
        if self.interpolate and self.method == "scratch":
            raise ConfigError(
                "option `--interpolate` needs a draft to start from, which `scratch` has not",
                hint="give the new draft to `--method distill` afterwards",
            )
        self.imitation()

    def imitation(self, **more: Any) -> Imitation:
        """How it learns from the target."""
        named = {name: getattr(self, name) for name in ("beta", "on_policy", "max_new_tokens", "seed")}
        default = SEQUENCE if self.method == "scratch" else "fkl"
        return Imitation(divergence=self.divergence or default, **named, **more)
