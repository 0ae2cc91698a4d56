"""The prompt: what one request asks for, checked on construction."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from foretoken.errors import RequestError

Processor = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen from the target's logits, applied in the order of the fields below.

    Attributes:
        repetition_penalty: > 0. Divides positive, multiplies negative logits of tokens in prompt or output (CTRL).
        presence_penalty: subtracted once from the logit of every token already in the output.
        frequency_penalty: subtracted per occurrence of the token in the output.
        logit_bias: token id -> number added to its logit.
        processors: callables of the `transformers` form, (input_ids [1, T] int64, scores [1, V]) -> scores [1, V]. They
            must depend on their arguments alone, since they are asked about drafted paths that may never happen.
        temperature: >= 0; 0 takes the most likely token.
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the smallest set of tokens whose probability reaches it; 1 keeps all.
        min_p: keep tokens at least this likely relative to the most likely one; 0 keeps all.
    """

    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    processors: tuple[Processor, ...] = ()
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        checks = (
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "a number above 0; 1 changes nothing"),
            ("presence_penalty", math.isfinite(self.presence_penalty), "a number; 0 changes nothing"),
            ("frequency_penalty", math.isfinite(self.frequency_penalty), "a number; 0 changes nothing"),
            ("logit_bias", all(bias < math.inf for bias in self.logit_bias.values()), "-inf forbids a token"),
            ("temperature", 0 <= self.temperature < math.inf, "0 takes the most likely token, 1 keeps the model's law"),
            ("top_k", self.top_k >= 0, "0 keeps every token"),
            ("top_p", 0 < self.top_p <= 1, "a number in (0, 1]; 1 keeps every token"),
            ("min_p", 0 <= self.min_p <= 1, "a number in [0, 1]; 0 keeps every token"),
        )
        for name, good, hint in checks:
            if not good:
                raise RequestError(f"{name} cannot be {getattr(self, name)}", hint=hint)

    @property
    def looks_back(self) -> bool:
        """Whether the distribution depends on which tokens came before, beyond the model itself."""
        penalties = (self.repetition_penalty, self.presence_penalty, self.frequency_penalty)
        return penalties != (1.0, 0.0, 0.0) or bool(self.processors)

    @property
    def edits(self) -> bool:
        """Whether scores are changed before temperature and cuts, so that another token may become the likeliest."""
        return self.looks_back or bool(self.logit_bias)

    @property
    def cuts(self) -> bool:
        """Whether tokens are left out of the distribution for being unlikely."""
        return (self.top_k, self.top_p, self.min_p) != (0, 1.0, 0.0)

    def warmth(self, temperature: float | None = None) -> float | None:
        """The temperature, where nothing else shapes the distribution; else None.

        Args:
            temperature: in place of its own, as a drafter may have it.
        """
        warmth = self.temperature if temperature is None else temperature
        # A cut changes nothing about the likeliest token.
        return None if self.edits or (self.cuts and warmth) else warmth

    def greedy(self, temperature: float | None = None) -> bool:
        """Whether the token of the highest score is taken, so that no distribution has to be built.

        Args:
            temperature: in place of its own, as a drafter may have it.
        """
        return (self.temperature if temperature is None else temperature) == 0 and not self.edits


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to generate.

    Attributes:
        prompt: token ids, at least one.
        sampling: see `Sampling`.
        max_new_tokens: how many tokens to emit at most.
        stop: texts that end the request; the text before the first of them is returned.
        stop_token_ids: ids that end the request and are kept as its last token.
        seed: starts the request's own random streams.
        logprobs: None, or how many most likely alternatives to report beside each emitted token.
        repeats: whether the same seed must give the same text, alone, in any batch, at any time. A sampled text follows
            from the candidate lengths as well, so these may not depend on the clock or on other requests then. Its
            distribution never does.
        streams: whether its text is wanted as it grows; else all of it comes with the last event, and is decoded once.
    """

    prompt: tuple[int, ...]
    sampling: Sampling = field(default_factory=Sampling)
    max_new_tokens: int = 256
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    seed: int = 0
    logprobs: int | None = None
    repeats: bool = True
    streams: bool = True

    def __post_init__(self) -> None:
        if not self.prompt:
            raise RequestError("the prompt is empty", hint="give at least one token of text to continue")
        if self.max_new_tokens < 1:
            raise RequestError(f"max_new_tokens cannot be {self.max_new_tokens}", hint="ask for at least one token")
        if any(not text for text in self.stop):
            raise RequestError("a stop string is empty", hint="leave it out")
        if self.logprobs is not None and self.logprobs < 0:
            raise RequestError(f"logprobs cannot be {self.logprobs}", hint="0 reports the chosen token alone")
