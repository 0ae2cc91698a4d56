"""The Python interface: load a target and a draft once, then generate."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast, overload

from foretoken.config import BITS, DEFAULT_TARGET, DEFAULTS, QUANTIZATIONS, Method, default_draft
from foretoken.costs import Costs
from foretoken.draft.known import Known
from foretoken.draft.relay import Relay
from foretoken.engine import Engine, check_fit, check_request
from foretoken.errors import ConfigError, ModelError, RequestError
from foretoken.length.base import LengthPolicy
from foretoken.metrics import Stats
from foretoken.models import threads
from foretoken.models.source import Checkpoint, LoadedModel, pick_backend, pick_device, pick_dtype
from foretoken.models.timing import calibrate
from foretoken.prices import typical
from foretoken.request import Request, Sampling
from foretoken.tokenizer import Prompt, Tokenizer
from foretoken.types import FinishReason, Logprob, Origin, Row, TokenEvent


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer to one prompt.

    Attributes:
        text: the text, up to a stop string.
        token_ids: emitted ids.
        origins: where each token came from.
        finish_reason: why it ended; None while it runs.
        stats: counts, rates and time; `seconds` runs from the call to this answer's last token.
        logprobs: one entry per token, or None when not asked for.
        seed: what reproduces it.
    """

    text: str
    token_ids: list[int]
    origins: list[Origin]
    finish_reason: FinishReason | None
    stats: Stats
    logprobs: list[Logprob] | None
    seed: int


def load(
    target: str = DEFAULT_TARGET,
    draft: str | None = None,
    *,
    length: str | Method = DEFAULTS["length"],
    shape: str | Method = DEFAULTS["shape"],
    accept: str | Method = DEFAULTS["accept"],
    draft_options: dict[str, str] | None = None,
    dtype: str = "auto",
    device: str = "auto",
    backend: str = "auto",
    quantization: str = "none",
    trust_remote_code: bool = False,
    weights: bool = True,
) -> LLM:
    """Load a target model and what speeds it up.

    Args:
        target: `builtin:pair`, a local folder, or a hub id.
        draft: a draft model (same forms), "int8" or "int4" (the target's own weights, compressed), a drafter that needs
            none (`none`, `suffix`, `blockwise:FILE`), `suffix+` and a draft model, or None: `suffix` for any target,
            with the built-in draft for the built-in one.
        length: length policy, `name` or `name:value` (`fixed:4`).
        shape: tree shape.
        accept: acceptance rule.
        draft_options: options of the drafter.
        dtype: "auto", "float32", "bfloat16" or "float16".
        device: "auto", "cpu", "cuda", ...
        backend: what runs the models: "torch", "graphs" (for a GPU), "openvino" (on a CPU), or "auto", which takes
            graphs on a GPU and OpenVINO on a CPU where it can.
        quantization: "int8", "int4", or "fp8" on a GPU, compresses the target's weights. Lossy: the target is then
            the compressed model, and its text is what drafting does not change.
        trust_remote_code: run Python code that comes with a checkpoint.
        weights: load the weights now, rather than with the first request.

    Raises:
        ConfigError: methods or options that do not exist or do not fit.
        ModelError: a checkpoint that is missing, broken or unsuitable.

    Example:
        >>> import foretoken
        >>> model = foretoken.load("builtin:pair")
        >>> answer = model.generate("How many legs do two dogs have?", max_new_tokens=32)
    """
    first, draft = Method.relay(draft or default_draft(target))
    methods = {
        **({"first": first} if first else {}),
        "draft": Method.drafter(draft, draft_options),
        "length": length if isinstance(length, Method) else Method.parse("length", length),
        "shape": shape if isinstance(shape, Method) else Method.parse("shape", shape),
        "accept": accept if isinstance(accept, Method) else Method.parse("accept", accept),
    }
    if draft == "model":
        raise ConfigError("the drafter `model` needs a draft model", hint="give its folder or hub id with `--draft`")
    how = {"dtype": dtype, "device": device, "backend": backend, "quantization": quantization}
    llm = LLM(target, draft, methods, **how, trust_remote_code=trust_remote_code)
    if weights:
        llm.prepare()
    return llm


class LLM:
    """A target with its drafter and methods. Made by `load`; everything cheap is checked on construction."""

    def __init__(
        self,
        target: str,
        draft: str,
        methods: dict[str, Method],
        *,
        dtype: str = "auto",
        device: str = "auto",
        backend: str = "auto",
        quantization: str = "none",
        trust_remote_code: bool = False,
    ) -> None:
        where = pick_device(device)
        pick_dtype(dtype, where)
        own = draft in QUANTIZATIONS[1:]  # the target's own weights
        for needed in (quantization, draft if own else "none"):
            pick_backend(backend, where, needed)
        if own and draft == quantization:
            raise ConfigError(
                f"the draft `{draft}` would be the target itself", hint="compress the target less, or draft by a model"
            )
        self._dtype, self._device, self._backend = dtype, device, backend
        self._choose(methods)
        self.target = Checkpoint(target, "target", trust_remote_code=trust_remote_code, quantization=quantization)
        self.draft: Checkpoint | None = None
        if own:
            self.draft = Checkpoint(target, "target", trust_remote_code=trust_remote_code, quantization=draft)
        elif self._types["draft"].uses_model:
            self.draft = Checkpoint(draft, "draft", trust_remote_code=trust_remote_code)
            if why := self.tokenizer.conflict(self.draft.tokenizer):
                raise ModelError(
                    f"target `{target}` and draft `{draft}` have different vocabularies: {why}",
                    hint="use a draft of the same model family, or `--draft none`",
                )
        self._inside = self._load_inside()
        self._length = self.make_length()

    @property
    def tokenizer(self) -> Tokenizer:
        """The target's tokenizer."""
        return self.target.tokenizer

    @cached_property
    def models(self) -> tuple[LoadedModel, LoadedModel | None]:
        """Target and draft model, their weights loaded on first use."""
        dtype, device, backend = self._dtype, self._device, self._backend
        added = self._inside.added_tokens() if self._inside else None
        target = self.target.load(dtype, device, None, backend, added)
        draft = self.draft.load(dtype, device, target.vocab_size, backend) if self.draft else None
        threads.settle(model.backend for model in (target, draft) if model)
        return target, draft

    @cached_property
    def costs(self) -> Costs | None:
        """What steps cost here: timed at first, in about half a second, and kept up to date by every run.

        None where nobody asks: without a drafter, or with a length policy that does not decide by time.
        """
        if not (self._length.uses_clock and self._types["draft"].drafts):
            return None
        costs = calibrate(*self.models)
        both = zip(self.models, (self.target, self.draft), strict=True)
        sizes = [model.num_parameters * BITS[of.quantization] / BITS["none"] for model, of in both if model and of]
        costs.typical = typical(*sizes)
        return costs

    def prepare(self) -> None:
        """Do now what the first request would otherwise wait for: load the weights and time them."""
        self.models  # noqa: B018 - loads
        self.costs  # noqa: B018 - times

    def make_length(self) -> LengthPolicy:
        """A fresh length policy. An LLM has one of its own, shared by all its runs."""
        kind, config = self._types["length"], self._configs["length"]
        if kind.trained is None:
            return cast(LengthPolicy, kind(config))
        path = self.draft.path / kind.trained.file_name if self.draft else None
        if config.file:
            path = Path(config.file)
        elif not kind.needs_trained and not (path and path.is_file()):
            return cast(LengthPolicy, kind(config))
        if self.draft is None or path is None:
            raise ConfigError(
                f"length policy `{self.methods['length'].name}` needs a draft model", hint="give one with `--draft`"
            )
        trained = kind.trained.load(path, self.draft.fingerprint)
        return cast(LengthPolicy, kind(config, trained.to(pick_device(self._device))))

    def _load_inside(self) -> Any:
        """What was trained for the target and drafts inside it, or None."""
        kind, config = self._types["draft"], self._configs["draft"]
        if kind.trained is None:
            return None
        if not config.file:
            name = self.methods["draft"].name
            raise ConfigError(
                f"the drafter `{name}` needs what was trained for the target",
                hint=f"`foretoken train {name}` makes a file; give it as `--draft {name}:FILE`",
            )
        return kind.trained.load(Path(config.file), self.target.fingerprint).to(pick_device(self._device))

    def engine(self) -> Engine:
        """A fresh engine, with an empty batch, over the loaded models."""
        target, draft = self.models
        drafter = self._types["draft"](self._configs["draft"], self._inside or draft)
        if "first" in self.methods:
            drafter = Relay(self._types["first"](self._configs["first"]), drafter)
        return Engine(
            target,
            drafter,
            self._length,
            self._types["shape"](self._configs["shape"]),
            self._types["accept"](self._configs["accept"]),
            decode=self.tokenizer.decode,
            open_ids=self.tokenizer.open_ids,
            costs=self.costs,
        )

    def using(self, *, draft: str | None = None, **methods: str | Method) -> LLM:
        """The same loaded models with other methods, for comparing them.

        Args:
            draft: "none" for plain decoding, without anything before it; None keeps the drafter.
            methods: `length`, `shape`, `accept`, as in `load`.

        Raises:
            ConfigError: methods or options that do not exist or do not fit.
        """
        chosen = dict(self.methods)
        if draft is not None:
            chosen["draft"] = Method("draft", draft)
            chosen.pop("first", None)
        for station, spec in methods.items():
            chosen[station] = spec if isinstance(spec, Method) else Method.parse(station, spec)
        return self._with(chosen)

    def alone(self) -> LLM:
        """The same with nothing asked before the draft model."""
        return self._with({which: method for which, method in self.methods.items() if which != "first"})

    def _with(self, chosen: dict[str, Method]) -> LLM:
        other = copy(self)
        other._choose(chosen)
        other._length = other.make_length()
        other.__dict__.pop("costs", None)  # its steps are other steps
        other.models = self.models  # what cannot work was refused before this loads them
        return other

    def _choose(self, methods: dict[str, Method]) -> None:
        self.methods = methods
        self._configs = {station: method.config() for station, method in methods.items()}
        self._types = {station: method.type for station, method in methods.items()}
        check_fit(self._types["draft"], self._types["length"], self._types["shape"], self._types["accept"])
        if "first" in methods:
            self._check_relay()

    def _check_relay(self) -> None:
        """Refuse two drafters that cannot work one after the other."""
        first, then = (self.methods[which].name for which in ("first", "draft"))
        if not issubclass(self._types["first"], Known):
            raise ConfigError(
                f"the drafter `{first}` cannot go before another", hint="`suffix` can: `--draft suffix+MODEL`"
            )
        if not self._types["draft"].uses_model:
            raise ConfigError(f"`{first}+` goes before a draft model, not before `{then}`", hint=f"`--draft {first}`")

    def request(
        self,
        prompt: Prompt,
        sampling: Sampling | None = None,
        *,
        max_new_tokens: int = 256,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
        logprobs: int | None = None,
        ignore_eos: bool = False,
        raw: bool = False,
    ) -> Request:
        """Turn a prompt into a request, checking everything that needs no weights.

        Raises:
            RequestError: the prompt is empty or too long, or a parameter is out of range.
        """
        sampling = sampling or Sampling()
        # A greedy text is the same whatever is drafted, and without a seed nobody asked for the text again.
        repeats = seed is not None and sampling.temperature > 0
        request = Request(
            self.tokenizer.encode(prompt, raw=raw),
            sampling,
            max_new_tokens,
            (stop,) if isinstance(stop, str) else tuple(stop),
            frozenset() if ignore_eos else self.target.stop_token_ids,
            secrets.randbits(32) if seed is None else seed,
            logprobs,
            repeats=repeats,
        )
        vocab_size = self.target.config.get_text_config().vocab_size
        check_request(request, self.target.max_length, self._types["accept"], vocab_size)
        return request

    def run(self, requests: Sequence[Request]) -> Run:
        """Start requests in one batch; iterate over the result to let them proceed."""
        return Run(self.engine(), requests)

    @overload
    def generate(self, prompt: Prompt, sampling: Sampling | None = None, **options: Any) -> Completion: ...

    @overload
    def generate(
        self, prompt: Sequence[Prompt], sampling: Sampling | Sequence[Sampling] | None = None, **options: Any
    ) -> list[Completion]: ...

    def generate(
        self,
        prompt: Prompt | Sequence[Prompt],
        sampling: Sampling | Sequence[Sampling] | None = None,
        **options: Any,
    ) -> Completion | list[Completion]:
        """Answer one prompt, or several in one batch.

        Args:
            prompt: a string (through the chat template where there is one), a list of messages, or a list of either.
            sampling: one `Sampling` for all, or one per prompt.
            options: as in `request`.

        Returns:
            A `Completion`, or a list of them in the order of the prompts.

        Raises:
            RequestError: a prompt or parameter cannot be served; nothing was generated then.
        """
        single = isinstance(prompt, str) or (len(prompt) > 0 and isinstance(prompt[0], Mapping))
        prompts = cast(list[Prompt], [prompt] if single else list(prompt))
        each = [sampling] * len(prompts) if sampling is None or isinstance(sampling, Sampling) else list(sampling)
        if len(each) != len(prompts):
            raise RequestError(f"{len(prompts)} prompts but {len(each)} samplings", hint="give one, or one per prompt")
        requests = [self.request(p, s, **options) for p, s in zip(prompts, each, strict=True)]
        run = self.run([replace(request, streams=False) for request in requests])
        for _ in run:
            pass
        completions = run.completions()
        return completions[0] if single else completions

    def stream(self, prompt: Prompt, sampling: Sampling | None = None, **options: Any) -> Iterator[TokenEvent]:
        """Answer one prompt piece by piece, one event per step; closing the iterator cancels the request.

        Args:
            prompt: as in `generate`.
            sampling: see `Sampling`.
            options: as in `request`.
        """
        return iter(self.run([self.request(prompt, sampling, **options)]))


class Run:
    """Requests on their way, in a batch of their own.

    Iterating yields events of all of them as they come; `completions` can be asked at any time.
    """

    def __init__(self, engine: Engine, requests: Sequence[Request]) -> None:
        self.engine = engine
        self._started = time.perf_counter()
        self._seconds: dict[int, float] = {}
        self._events: dict[int, list[TokenEvent]] = {}
        self.rows = engine.start(list(requests))
        for row in self.rows:
            self._events[row.id] = []

    def __iter__(self) -> Iterator[TokenEvent]:
        try:
            while self.engine.batch.rows:
                for event in self.engine.step():
                    yield self._keep(event)
        finally:
            self.cancel()

    def cancel(self) -> list[TokenEvent]:
        """End what still runs; what was emitted stays."""
        return [self._keep(self.engine.cancel(row)) for row in list(self.engine.batch.rows)]

    def completions(self) -> list[Completion]:
        """What each request has so far, in order."""
        return [self._completion(row) for row in self.rows]

    def _keep(self, event: TokenEvent) -> TokenEvent:
        self._events[event.id].append(event)
        if event.finish is not None:
            self._seconds[event.id] = time.perf_counter() - self._started
        return event

    def _completion(self, row: Row) -> Completion:
        events = self._events[row.id]
        logprobs = None if row.request.logprobs is None else [one for e in events for one in e.logprobs or []]
        return Completion(
            "".join(e.text for e in events),
            row.output,
            [origin for e in events for origin in e.origins],
            row.finish,
            Stats(row.counts, self._seconds.get(row.id, time.perf_counter() - self._started)),
            logprobs,
            row.request.seed,
        )
