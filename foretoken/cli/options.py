"""Options that several commands share, as groups; each field is one option."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from foretoken.config import DEFAULT_TARGET, DEFAULTS
from foretoken.errors import ConfigError
from foretoken.registry import METHODS

if TYPE_CHECKING:
    from foretoken.llm import LLM
    from foretoken.request import Request, Sampling
    from foretoken.tokenizer import Prompt

in_models = partial(typer.Option, rich_help_panel="Models and methods")
in_sampling = partial(typer.Option, rich_help_panel="Sampling")
in_output = partial(typer.Option, rich_help_panel="Output")


@dataclass(frozen=True)
class ModelOptions:
    """Which models and methods. The defaults are those of `foretoken.load`."""

    target: Annotated[str, in_models(metavar="MODEL", help="Built-in pair, folder, or hub id.")] = DEFAULT_TARGET
    draft: Annotated[
        str | None,
        in_models(
            metavar="DRAFTER",
            help="Draft model (same forms), `int8`, `int4` or `fp8` (the target's own weights, compressed), or a "
            "drafter that needs none: NAME or NAME:FILE. `suffix+DRAFT` looks into the text first. Default: `suffix`, "
            "with the built-in draft for the built-in target.",
        ),
    ] = None
    length: Annotated[str, in_models(metavar="POLICY", help="How deep to draft: NAME or NAME:VALUE.")] = DEFAULTS[
        "length"
    ]
    shape: Annotated[str, in_models(metavar="SHAPE", help="How wide to draft.")] = DEFAULTS["shape"]
    accept: Annotated[str, in_models(metavar="RULE", help="Which drafted tokens to keep.")] = DEFAULTS["accept"]
    option: Annotated[list[str], in_models("--option", hidden=True)] = field(default_factory=list)
    dtype: Annotated[str, in_models(metavar="DTYPE", help="auto, float32, bfloat16 or float16.")] = "auto"
    device: Annotated[str, in_models(metavar="DEVICE", help="auto, cpu, cuda, ...")] = "auto"
    backend: Annotated[str, in_models(metavar="NAME", help="auto, torch, graphs (GPU) or openvino (CPU).")] = "auto"
    quantization: Annotated[
        str, in_models(metavar="BITS", help="none, int8, int4 or (on a GPU) fp8 weights of the target: lossy.")
    ] = "none"
    trust_remote_code: Annotated[
        bool, in_models("--trust-remote-code", help="Run Python code that comes with a model.")
    ] = False

    def __post_init__(self) -> None:
        for entry in self.option:
            if not any(entry.startswith(f"{station}.") for station in METHODS):
                raise ConfigError(
                    f"unknown option `{entry}`", hint="write `--STATION.NAME VALUE`, `--length.k 3` for one"
                )

    def method_options(self, station: str) -> dict[str, str]:
        """Options given for one station's method."""
        split = [entry.partition("=") for entry in self.option]
        return {name.removeprefix(f"{station}."): value for name, _, value in split if name.startswith(f"{station}.")}


@dataclass(frozen=True)
class SamplingOptions:
    """How tokens are chosen, and when to end."""

    max_new_tokens: Annotated[int, in_sampling(metavar="N", help="Emit at most this many.")] = 256
    temperature: Annotated[float, in_sampling(metavar="T", help="0 takes the most likely token.")] = 0.0
    top_k: Annotated[int, in_sampling(metavar="K", help="Keep the k most likely; 0 keeps all.")] = 0
    top_p: Annotated[float, in_sampling(metavar="P", help="Keep the fewest that reach this probability.")] = 1.0
    min_p: Annotated[float, in_sampling(metavar="P", help="Least probability, relative to the best.")] = 0.0
    repetition_penalty: Annotated[
        float, in_sampling(metavar="X", help="Above 1: against tokens of prompt and answer.")
    ] = 1.0
    presence_penalty: Annotated[float, in_sampling(metavar="X", help="Against tokens of the answer, once.")] = 0.0
    frequency_penalty: Annotated[float, in_sampling(metavar="X", help="Against tokens of the answer, each time.")] = 0.0
    logit_bias: Annotated[
        list[str], in_sampling(metavar="ID=VALUE", help="Add VALUE to a token's logit. Repeatable.")
    ] = field(default_factory=list)
    stop: Annotated[list[str], in_sampling(metavar="TEXT", help="End before this text. Repeatable.")] = field(
        default_factory=list
    )
    ignore_eos: Annotated[bool, in_sampling("--ignore-eos", help="Go on after an end-of-sequence token.")] = False
    seed: Annotated[int | None, in_sampling(metavar="N", help="Repeats a sampled answer. Default: a new one.")] = None

    def request(self, llm: LLM, prompt: Prompt, *, raw: bool = False, logprobs: int | None = None) -> Request:
        """A checked request for a prompt; needs no weights."""
        return llm.request(
            prompt,
            self.sampling(),
            max_new_tokens=self.max_new_tokens,
            stop=self.stop,
            seed=self.seed,
            logprobs=logprobs,
            ignore_eos=self.ignore_eos,
            raw=raw,
        )

    def sampling(self) -> Sampling:
        """What the engine needs to choose a token."""
        from foretoken.request import Sampling

        return Sampling(
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=dict(_bias(entry) for entry in self.logit_bias),
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
        )


@dataclass(frozen=True)
class OutputOptions:
    """What is shown, and where."""

    json: Annotated[bool, in_output("--json", help="One JSON object per answer on stdout.")] = False
    stats: Annotated[bool, in_output("--stats", help="Counts, rates and time, on stderr.")] = False
    show_draft: Annotated[bool, in_output("--show-draft", help="Mark which tokens were drafted.")] = False
    quiet: Annotated[bool, in_output("--quiet", help="No progress, notes or warnings.")] = False
    debug: Annotated[bool, in_output("--debug", help="Tracebacks and library messages.")] = False


def _bias(entry: str) -> tuple[int, float]:
    """Read `ID=VALUE`."""
    token, _, value = entry.partition("=")
    try:
        return int(token), float(value)
    except ValueError:
        raise ConfigError(
            f"option `--logit-bias` cannot be {entry!r}", hint="write a token id and a number, such as `50=-100`"
        ) from None
