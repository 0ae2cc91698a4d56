"""Conversions for OpenVINO, made once and kept on disk: keyed by content, verified on reading, proved on loading."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openvino as ov
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from foretoken import __version__
from foretoken.errors import ModelError
from foretoken.models.openvino import OpenVINOModel
from foretoken.models.openvino_graph import INSTEAD, append_tokens, check_config, trace
from foretoken.models.openvino_run import check_dtype, core
from foretoken.models.openvino_weights import join, pack, round_weights, shorten
from foretoken.models.openvino_width import settle
from foretoken.models.proof import expect, says_the_same
from foretoken.models.store import check_space, first_line, home, keep, tidy

if TYPE_CHECKING:
    from foretoken.models.source import Checkpoint

log = logging.getLogger("foretoken")
FORMAT = 4  # of the files below; a new one leaves old entries alone
GRAPH, WEIGHTS, PROOF, MANIFEST = "model.xml", "model.bin", "proof.safetensors", "manifest.json"
ROOM = "free some space or let XDG_CACHE_HOME name another disk, or it is converted every time"


def load(
    checkpoint: Checkpoint,
    weights: Callable[[], PreTrainedModel],
    dtype: torch.dtype,
    vocab_size: int | None = None,
    added: Tensor | None = None,
) -> OpenVINOModel:
    """Load a checkpoint for OpenVINO, converting it the first time.

    Args:
        checkpoint: what to load.
        weights: reads its weights in float32; only called to convert.
        dtype: float32 or bfloat16.
        vocab_size: as in `HFModel`.
        added: [E, H] float or None. Rows for tokens behind those that the input embedding has; they are not stored.

    Returns:
        The model; its `note` says what went wrong on the way, if anything did.

    Raises:
        ModelError: the model does not run on OpenVINO, or not on this machine.
    """
    check_dtype(dtype)
    check_config(checkpoint.config, checkpoint.max_length)
    folder, notes = home("openvino") / key(checkpoint), []
    stored = None
    try:
        stored = read(folder)
    except ValueError as error:
        notes.append(f"the stored conversion of {checkpoint} {error}, so it was converted again")
        shutil.rmtree(folder, ignore_errors=True)
    if stored is None:
        if tidy(folder):
            notes.append(f"an earlier conversion of {checkpoint} was cut short, so it was converted again")
        stored, why = _store(folder, *convert(checkpoint, weights, folder), f"{checkpoint}")
        if why:
            notes.append(f"the conversion of {checkpoint} could not be kept: {why}; {ROOM}")
        _tell(4, f"{checkpoint}", "compiling and proving it")
    graph, proof = stored
    try:
        if added is not None:
            append_tokens(graph, added)
        model = OpenVINOModel(graph, dtype, checkpoint.max_length, vocab_size)
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot run {checkpoint} here: {first_line(error)}", hint=INSTEAD) from error
    if not says_the_same(model, proof):
        raise ModelError(f"{checkpoint} does not say on OpenVINO what it says by itself", hint=INSTEAD)
    settle(model, folder)
    model.note = "; ".join(notes) or None
    return model


def key(checkpoint: Checkpoint) -> str:
    """Name of a conversion: a hash of everything it depends on."""
    code = [file.read_bytes() for file in (checkpoint.path / "config.json", *sorted(checkpoint.path.glob("*.py")))]
    versions = [FORMAT, __version__, ov.__version__, transformers.__version__, torch.__version__]
    content = [checkpoint.fingerprint, checkpoint.quantization, *(hashlib.sha256(part).hexdigest() for part in code)]
    return hashlib.sha256(json.dumps([versions, content]).encode()).hexdigest()[:32]


def read(folder: Path) -> tuple[ov.Model, dict[str, Tensor]] | None:
    """A stored graph and its proof, or None.

    Raises:
        ModelError: the model was tried before and does not convert.
        ValueError: the entry is damaged; the message goes on after a subject.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if refused := manifest.get("refused"):
            raise ModelError(refused, hint=INSTEAD)
        if manifest != _manifest(folder):
            raise ValueError("is damaged")
        return core().read_model(folder / GRAPH), load_file(folder / PROOF)
    except FileNotFoundError:
        if folder.exists():
            raise ValueError("is incomplete") from None
        return None
    except ModelError:
        raise
    except Exception as error:  # whatever the libraries make of a damaged file
        raise ValueError("cannot be read" if not isinstance(error, ValueError) else "is damaged") from error


def convert(
    checkpoint: Checkpoint, weights: Callable[[], PreTrainedModel], folder: Path
) -> tuple[ov.Model, dict[str, Tensor]]:
    """Convert a checkpoint; one that cannot be is remembered in the folder.

    Raises:
        ModelError: the model does not convert.
    """
    _tell(1, f"{checkpoint}", "reading its weights")
    model = weights().eval()
    packed = {} if checkpoint.quantization == "none" else round_weights(model, checkpoint.quantization)
    proof = expect(model, checkpoint.max_length)
    _tell(2, f"{checkpoint}", "tracing it")
    try:
        graph = trace(model, checkpoint.max_length)
        pack(graph, packed)
        join(graph)
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # a tracer and a converter raise many kinds
        message = f"`{model.config.model_type}` models do not convert to OpenVINO: {first_line(error)}"
        message = str(error) if isinstance(error, ModelError) else message
        keep(folder, MANIFEST, lambda place: (place / MANIFEST).write_text(json.dumps({"refused": message})))
        raise ModelError(message, hint=INSTEAD) from error
    shorten(graph)
    return graph, proof


def _store(
    folder: Path, graph: ov.Model, proof: dict[str, Tensor], name: str
) -> tuple[tuple[ov.Model, dict[str, Tensor]], str | None]:
    """Store a conversion and read it back, so that the first run is like all others: more is fused in what was read.

    Returns:
        Graph and proof, as given where they could not be stored.
        Why not, or None.
    """

    def save(place: Path) -> None:
        check_space(place, _size(graph) + 2**24)
        ov.save_model(graph, place / GRAPH, compress_to_fp16=False)
        save_file(proof, place / PROOF)
        core().read_model(place / GRAPH)  # a disk that filled up half-way leaves a file that is too short
        (place / MANIFEST).write_text(json.dumps(_manifest(place)))

    _tell(3, name, f"writing {_size(graph) / 2**20:,.0f} MB to `{home('openvino')}`")
    why = keep(folder, MANIFEST, save)
    if not why:
        try:
            if stored := read(folder):
                return stored, None
            why = "it is gone"
        except ValueError as error:
            why = f"what was written {error}"
    return (graph, proof), why


def _size(graph: ov.Model) -> int:
    """Bytes of all constants."""
    return sum(node.get_byte_size() for node in graph.get_ordered_ops() if node.get_type_name() == "Constant")


def _tell(stage: int, name: str, what: str) -> None:
    """Say how far a conversion is, to whoever listens."""
    log.info("converting %s for OpenVINO, once (%d of 4): %s", name, stage, what)


def _manifest(folder: Path) -> dict[str, Any]:
    """Size and hash of each file."""
    files = {}
    for name in (GRAPH, WEIGHTS, PROOF):
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[name] = [(folder / name).stat().st_size, digest]
    return {"files": files}
