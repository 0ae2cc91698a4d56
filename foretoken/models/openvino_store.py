"""Conversions for OpenVINO, made once and kept on disk: keyed by content, verified on reading, proved on loading."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from foretoken import __version__
from foretoken.errors import ModelError
from foretoken.models.openvino import OpenVINOModel, append_tokens, check_dtype, core
from foretoken.models.openvino_graph import INSTEAD, check_config, facts_of, trace
from foretoken.models.proof import TOLERANCE, distance, probe, read_with_detours

if TYPE_CHECKING:
    from foretoken.models.source import Checkpoint

FORMAT = 1  # of the files below; a new one leaves old entries alone
GRAPH, WEIGHTS, PROOF, MANIFEST = "model.xml", "model.bin", "proof.safetensors", "manifest.json"
ABANDONED = 3600.0  # seconds after which half a conversion is nobody's any more
FAR = 24  # tokens read at the end of the context, to prove that positions are followed there too


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
    folder, notes = home() / key(checkpoint), []
    stored = None
    try:
        stored = read(folder)
    except ValueError as error:
        notes.append(f"the stored conversion of {checkpoint} {error}, so it was converted again")
        shutil.rmtree(folder, ignore_errors=True)
    if stored is None:
        graph, proof = convert(checkpoint, weights, folder)
        if why := write(folder, graph, proof):
            notes.append(f"the conversion of {checkpoint} could not be kept: {why}")
        # What was stored, so that the first run is like all others: more is fused in a graph that was read.
        stored = (None if why else read(folder)) or (graph, proof)
    graph, proof = stored
    try:
        if added is not None:
            append_tokens(graph, added)
        model = OpenVINOModel(graph, dtype, checkpoint.max_length, vocab_size)
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot run {checkpoint} here: {_first_line(error)}", hint=INSTEAD) from error
    model.note = "; ".join(notes) or None
    prove(model, proof, f"{checkpoint}")
    return model


def home() -> Path:
    """Where conversions are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "foretoken" / "openvino"


def key(checkpoint: Checkpoint) -> str:
    """Name of a conversion: a hash of everything it depends on."""
    code = [file.read_bytes() for file in (checkpoint.path / "config.json", *sorted(checkpoint.path.glob("*.py")))]
    versions = [FORMAT, __version__, ov.__version__, transformers.__version__, torch.__version__]
    content = [checkpoint.fingerprint, *(hashlib.sha256(part).hexdigest() for part in code)]
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
    model = weights().eval()
    proof = expect(model, checkpoint.max_length)
    try:
        graph = trace(model, checkpoint.max_length)
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # a tracer and a converter raise many kinds
        message = f"`{model.config.model_type}` models do not convert to OpenVINO: {_first_line(error)}"
        message = str(error) if isinstance(error, ModelError) else message
        _keep(folder, lambda place: (place / MANIFEST).write_text(json.dumps({"refused": message})))
        raise ModelError(message, hint=INSTEAD) from error
    shorten(graph)
    return graph, proof


@torch.no_grad()
def expect(model: PreTrainedModel, max_length: int) -> dict[str, Tensor]:
    """What the model makes of a few tokens by itself, at the beginning and at the end of its context."""
    readable = int(model.get_input_embeddings().weight.shape[0])
    far = torch.randint(readable, (1, min(FAR, max_length)), generator=torch.Generator().manual_seed(0))
    places = torch.arange(max_length - far.shape[1], max_length)[None]
    near = model(input_ids=probe(readable), use_cache=False).logits[:, 2:]
    there = model(input_ids=far, position_ids=places, use_cache=False).logits[:, -8:]
    return {"near": near.float().contiguous(), "far": far, "there": there.float().contiguous()}


def prove(model: OpenVINOModel, proof: dict[str, Tensor], name: str) -> None:
    """Prove that the model follows mask, positions and cache, and says what the original says.

    Raises:
        ModelError: it does not.
    """
    found = read_with_detours(model.forward, model.new_cache(1), probe(model.readable))
    far = proof["far"]
    size = far.shape[1]
    mask = torch.ones(1, size, size, dtype=torch.bool).tril()
    places = torch.arange(model.max_length - size, model.max_length)[None]
    there = model.forward(far, places, mask, model.new_cache(1), last=proof["there"].shape[1]).logits
    worst = max(distance(found, proof["near"]), distance(there, proof["there"]))
    if not worst < TOLERANCE[model.dtype]:
        raise ModelError(f"{name} does not say on OpenVINO what it says by itself", hint=INSTEAD)


def shorten(graph: ov.Model) -> None:
    """Store weights that bfloat16 can hold exactly as such, which halves the file; arithmetic does not change."""
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() != ov.Type.f32:
            continue
        bits = node.data.view(np.uint32)
        if bits.ndim > 1 and not (bits & 0xFFFF).any():
            short = ov.Tensor(ov.Type.bf16, ov.Shape(bits.shape))
            short.data[:] = (bits >> 16).astype(np.uint16).view(np.float16)  # numpy has no bfloat16; bits are bits
            held = ov.op.Constant(short)
            held.set_friendly_name(node.get_friendly_name())
            node.output(0).replace(ov.opset13.convert(held, "f32").output(0))


def write(folder: Path, graph: ov.Model, proof: dict[str, Tensor]) -> str | None:
    """Keep a conversion. Returns why that was not possible, or None."""

    def save(place: Path) -> None:
        need, free = 4 * facts_of(graph).num_parameters + 2**24, shutil.disk_usage(place).free
        if free < need:
            raise OSError(f"it needs {need // 2**20:,} MB in `{place.parent}`, where {free // 2**20:,} are free")
        ov.save_model(graph, place / GRAPH, compress_to_fp16=False)
        save_file(proof, place / PROOF)
        core().read_model(place / GRAPH)  # a disk that filled up half-way leaves a file that is too short
        (place / MANIFEST).write_text(json.dumps(_manifest(place)))

    return _keep(folder, save)


def _keep(folder: Path, save: Callable[[Path], Any]) -> str | None:
    """Fill a folder under another name, then give it its own, so that half an entry never looks like one."""
    place = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for old in folder.parent.glob(f"{folder.name}.*"):
            if time.time() - old.stat().st_mtime > ABANDONED:
                shutil.rmtree(old, ignore_errors=True)
        place = Path(mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        save(place)
        try:
            os.replace(place, folder)
        except OSError:
            if not (folder / MANIFEST).is_file():  # else another process was faster
                raise
        return None
    except (OSError, RuntimeError) as error:  # OpenVINO raises the latter
        return _first_line(error)
    finally:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _manifest(folder: Path) -> dict[str, Any]:
    """Size and hash of each file."""
    files = {}
    for name in (GRAPH, WEIGHTS, PROOF):
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[name] = [(folder / name).stat().st_size, digest]
    return {"files": files}
