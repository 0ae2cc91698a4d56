"""Lossless speculative decoding: the target model's own output, sooner."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foretoken.errors import ConfigError, ForetokenError, GenerationError, ModelError, RequestError
    from foretoken.llm import LLM, Completion, Run, load
    from foretoken.metrics import Stats
    from foretoken.request import Request, Sampling
    from foretoken.types import FinishReason, Logprob, Origin, TokenEvent

__all__ = [
    "LLM",
    "Completion",
    "ConfigError",
    "FinishReason",
    "ForetokenError",
    "GenerationError",
    "Logprob",
    "ModelError",
    "Origin",
    "Request",
    "RequestError",
    "Run",
    "Sampling",
    "Stats",
    "TokenEvent",
    "load",
]

__version__ = "0.1.0"

HOMES = ("errors", "request", "types", "metrics", "llm")


def __getattr__(name: str) -> Any:
    """Import public names on use, so that a command line that only reports a mistake need not wait for torch."""
    if name in __all__:
        for home in HOMES:
            module = import_module(f"foretoken.{home}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module `foretoken` has no attribute `{name}`")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
