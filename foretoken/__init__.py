"""Lossless speculative decoding: the target model's own output, sooner."""

from foretoken.errors import ConfigError, ForetokenError, GenerationError, ModelError, RequestError
from foretoken.llm import LLM, Completion, Run, load
from foretoken.metrics import Stats
from foretoken.types import FinishReason, Logprob, Origin, Request, Sampling, TokenEvent

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
