"""From options to a loaded `LLM`, in two stages: everything that needs no weights first."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretoken.cli.options import ModelOptions, OutputOptions
from foretoken.cli.output import note, progress, say, shows_progress
from foretoken.config import QUANTIZATIONS, Method
from foretoken.errors import ConfigError, did_you_mean
from foretoken.registry import METHODS

if TYPE_CHECKING:
    from foretoken.llm import LLM
    from foretoken.request import Request


def open_llm(models: ModelOptions, output: OutputOptions) -> LLM:
    """Check models and methods; loads no weights.

    Raises:
        ForetokenError: something does not exist or does not fit.
    """
    # Methods come first: a misspelled one should not have to wait for the model libraries.
    chosen = {station: _method(models, station) for station in ("length", "shape", "accept")}
    _check_draft(models)
    with progress(f"opening {models.target}", output.quiet):
        hush(output)
        from foretoken.llm import load

        llm = load(
            models.target,
            models.draft,
            length=chosen["length"],
            shape=chosen["shape"],
            accept=chosen["accept"],
            draft_options=models.method_options("draft"),
            dtype=models.dtype,
            device=models.device,
            backend=models.backend,
            quantization=models.quantization,
            trust_remote_code=models.trust_remote_code,
            weights=False,
        )
    if not lossless(llm) and not output.quiet:
        say("warning", f"rule `{llm.methods['accept'].name}` is lossy: the text may differ from the target's own")
    if (bits := llm.target.quantization) != "none" and not output.quiet:
        say("warning", f"{bits} weights are lossy: the text is that of the compressed target, however it is drafted")
    return llm


def load_weights(llm: LLM, output: OutputOptions) -> None:
    """Load what `open_llm` checked."""
    try:
        with progress(f"loading {llm.target.location}", output.quiet):
            llm.prepare()
    except KeyboardInterrupt:
        if not output.quiet:
            note("interrupted while loading: nothing half-done was kept, and the next run starts afresh")
        raise
    notes = dict.fromkeys(model.note for model in llm.models if model is not None and model.note)
    for message in () if output.quiet else notes:
        note(message)


def lossless(llm: LLM) -> bool:
    """Whether the text has exactly the target's distribution (compressed, if it is), which only the rule decides."""
    return bool(llm.methods["accept"].type.lossless)


def dtype_name(llm: LLM) -> str:
    """What the target computes in, whether or not it was asked for."""
    return str(llm.models[0].dtype).removeprefix("torch.")


def config_json(llm: LLM, request: Request) -> dict[str, Any]:
    """Everything that was decided, defaults filled in: models, dtype, device, methods, sampling parameters."""
    target, _ = llm.models
    methods = {s: {"name": m.name, "options": dataclasses.asdict(m.config())} for s, m in llm.methods.items()}
    sampling = {f.name: getattr(request.sampling, f.name) for f in dataclasses.fields(request.sampling)}
    del sampling["processors"]  # functions, which a command line cannot give
    return {
        "target": llm.target.location,
        "draft_model": llm.draft.location if llm.draft and llm.methods["draft"].type.uses_model else None,
        "dtype": dtype_name(llm),
        "device": str(target.device),
        "backend": target.backend,
        "quantization": llm.target.quantization,
        "draft_quantization": llm.draft.quantization if llm.draft else None,
        **methods,
        "sampling": sampling,
        "max_new_tokens": request.max_new_tokens,
        "stop": list(request.stop),
        "stop_token_ids": sorted(request.stop_token_ids),
    }


def _method(models: ModelOptions, station: str) -> Method:
    """The method chosen for a station, checked with its options."""
    method = Method.parse(station, getattr(models, station), models.method_options(station))
    method.config()
    return method


def _check_draft(models: ModelOptions) -> None:
    """Refuse a word that is neither a drafter nor looks like a model, rather than ask the hub for it."""
    if models.draft is None:
        return
    _, draft = Method.relay(models.draft)
    if draft in QUANTIZATIONS or Path(draft).is_dir():
        return
    name, colon, _ = draft.partition(":")
    if name in METHODS["draft"] or (name == "builtin" if colon else "/" in draft):
        return
    words = {*METHODS["draft"], *QUANTIZATIONS}
    raise ConfigError(
        f"unknown drafter `{name}`",
        hint=f"{did_you_mean(name, words)}; a folder must exist, and a hub id is written owner/name",
    )


def hush(output: OutputOptions) -> None:
    """Keep the model libraries off stderr; a download may show its bar to someone who watches."""
    if output.debug:
        return
    from huggingface_hub.utils import disable_progress_bars
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    if not shows_progress(output.quiet):
        disable_progress_bars()
