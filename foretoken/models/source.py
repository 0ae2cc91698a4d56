"""Where a checkpoint comes from, and everything that can be known about it without loading its weights."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError, safe_open
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import logging as library

from foretoken.config import QUANTIZATIONS
from foretoken.errors import ModelError, did_you_mean
from foretoken.models.capture import fastest
from foretoken.models.hf import HFModel, adapt, append_tokens, cache_argument
from foretoken.models.norms import fuse_norms
from foretoken.models.static import freeze
from foretoken.models.torch_weights import compress
from foretoken.tokenizer import Tokenizer

if TYPE_CHECKING:
    from foretoken.models.openvino import OpenVINOModel

LoadedModel: TypeAlias = "HFModel | OpenVINOModel"
BACKENDS = ("auto", "torch", "graphs", "openvino")
BUILTIN = files("foretoken") / "data" / "models"
MISSING = (
    "OpenVINO, which is two to three times as fast on a CPU, is not installed: `pip install 'foretoken[openvino]'`"
)
UNKNOWN = "is it a causal language model this version of transformers knows?"
AGAIN = "download it again (with Git LFS, if it was cloned); it may have been cut short"
FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.py"]
LENGTHS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")
# Kinds of layers that only keep keys and values, or nothing, and look at all of them or at the last few.
LAYERS = {"full_attention", "sliding_attention", "attention", "mlp", "moe", "dummy"}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Checkpoint:
    """A causal language model in Hugging Face format.

    Args:
        location: `builtin:NAME`, a local folder, or a hub id (`owner/name`, or the one-word name of an old model).
        role: "target" or "draft"; a built-in pair holds both.
        trust_remote_code: run Python code that comes with the checkpoint.
        quantization: "none", or "int8", "int4" or "fp8" (on a GPU) to round the weights when they are loaded.

    Raises:
        ModelError: there is nothing usable at the location, or the model cannot be rolled back.
    """

    def __init__(
        self, location: str, role: str, *, trust_remote_code: bool = False, quantization: str = "none"
    ) -> None:
        self.location = location
        self.role = role
        self.quantization = quantization
        self._trust = trust_remote_code
        self.path = _resolve(location, role)
        if not (self.path / "config.json").is_file():
            raise ModelError(f"no config.json in `{self.path}`", hint="give the folder of a Hugging Face checkpoint")
        self.weight_files = _weight_files(self.path)
        check_rollback(self)

    def __str__(self) -> str:
        return f"{self.role} `{self.location}`" + ("" if self.quantization == "none" else f" in {self.quantization}")

    @cached_property
    def config(self) -> Any:
        """The checkpoint's `transformers` configuration.

        Raises:
            ModelError: it cannot be read, or wants to run code that was not allowed.
        """
        try:
            with quiet():
                return AutoConfig.from_pretrained(self.path, trust_remote_code=self._trust)
        except Exception as error:  # the library raises many kinds here
            what, hint = f"cannot read the configuration of {self}: {_first_line(error)}", UNKNOWN
            if "trust_remote_code" in str(error):
                what, hint = (
                    f"{self} comes with Python code of its own",
                    "add `--trust-remote-code` if you trust its author",
                )
            raise ModelError(what, hint=hint) from error

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer.

        Raises:
            ModelError: there is none, or it cannot be read.
        """
        try:
            with quiet():
                return Tokenizer(AutoTokenizer.from_pretrained(self.path, trust_remote_code=self._trust))
        except Exception as error:  # the library raises many kinds here
            raise ModelError(
                f"cannot read the tokenizer of {self}: {_first_line(error)}",
                hint="the folder needs a tokenizer.json, or the files it is made from",
            ) from error

    @property
    def max_length(self) -> int:
        """Longest sequence the model can read, in tokens."""
        text = self.config.get_text_config()
        named = (getattr(text, name, None) for name in LENGTHS)
        if (length := next((value for value in named if isinstance(value, int)), None)) is None:
            raise ModelError(f"{self} does not say how long its context is", hint=f"config.json needs {LENGTHS[0]}")
        # LongRoPE turns every key differently once a sequence outgrows this length, so what a draft reads ahead would
        # change what was read before.
        rope = getattr(text, "rope_parameters", None) or {}
        for part in (rope, *rope.values()):
            if isinstance(part, dict) and part.get("rope_type") == "longrope":
                length = min(length, part.get("original_max_position_embeddings") or length)
        return length

    @property
    def stop_token_ids(self) -> frozenset[int]:
        """Ids that end a text: those of generation_config.json, else of config.json."""
        path = self.path / "generation_config.json"
        try:
            found = json.loads(path.read_text()).get("eos_token_id") if path.is_file() else None
        except (ValueError, OSError, AttributeError) as error:
            raise ModelError(f"cannot read `{path}`: {_first_line(error)}", hint="repair or delete it") from error
        found = self.config.get_text_config().eos_token_id if found is None else found
        return frozenset([] if found is None else [found] if isinstance(found, int) else found)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights, which tells a model from its fine-tuned relatives."""
        digest = hashlib.sha256()
        for file in self.weight_files:
            with file.open("rb") as weights:
                digest.update(hashlib.file_digest(weights, "sha256").digest())
        return digest.hexdigest()

    def load(
        self,
        dtype: str = "auto",
        device: str = "auto",
        vocab_size: int | None = None,
        backend: str = "auto",
        added: torch.Tensor | None = None,
    ) -> LoadedModel:
        """Load the weights.

        Args:
            dtype: "auto", "float32", "bfloat16" or "float16".
            device: "auto", or what torch calls it.
            vocab_size: logits to return, when a draft must follow its target.
            backend: "torch", "graphs", "openvino" (CPU only), or "auto": graphs on a GPU, OpenVINO on a CPU where it is
                installed, else torch, which also runs what those do not.
            added: [E, H] float or None. Rows for tokens behind those that the input embedding has.

        Returns:
            The model; its `note` says why "auto" chose torch, or what else the user should know.

        Raises:
            ModelError: the weights do not load, do not fit, or the model does not follow our mask and cache.
        """
        where = pick_device(device)
        number, note = pick_dtype(dtype, where), None
        picked = pick_backend(backend, where, self.quantization)
        if picked == "openvino":
            from foretoken.models import openvino_store

            try:
                with quiet():
                    return openvino_store.load(self, lambda: self._read(torch.float32), number, vocab_size, added)
            except ModelError as error:
                if backend == "openvino":
                    raise
                note = f"{self} runs on torch: {error}"
        elif backend == "auto" and where.type == "cpu":
            note = MISSING
        with self._explained(where, number), quiet():
            read = self._read(number)
            if added is not None:
                append_tokens(read, added)
            read = read.to(where)
            if self.quantization != "none":
                compress(read, self.quantization)
            if where.type == "cuda":
                fuse_norms(read)
            model = adapt(read, self.max_length, vocab_size)
            if picked == "graphs":
                try:
                    model = freeze(model, fastest(where))
                except ModelError as error:
                    if backend == "graphs":
                        raise
                    note = f"{self} runs on torch: {error}"
        model.note = note
        return model

    def _read(self, dtype: torch.dtype) -> PreTrainedModel:
        """The model as the library makes it, on the CPU, with all of its weights."""
        with self._explained(torch.device("cpu"), dtype), quiet():
            model, report = AutoModelForCausalLM.from_pretrained(
                self.path,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=self._trust,
                output_loading_info=True,
            )
            _check_complete(self, model, report)
            read: PreTrainedModel = model
            return read

    @contextmanager
    def _explained(self, where: torch.device, dtype: torch.dtype) -> Iterator[None]:
        """Say what to do about what goes wrong while weights load."""
        try:
            yield
        except ModelError:
            raise
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"{self} does not fit into the memory of `{where}` in {dtype}",
                hint="use a smaller model, `--dtype bfloat16` or `--device cpu`",
            ) from error
        except Exception as error:  # the library raises many kinds here
            raise ModelError(f"cannot load {self}: {_first_line(error)}", hint=UNKNOWN) from error


def check_rollback(checkpoint: Checkpoint) -> None:
    """Refuse a model whose state cannot be rolled back; needs the configuration alone.

    Raises:
        ModelError: it is no causal language model, or one with layers that keep more than keys and values.
    """
    config = checkpoint.config
    try:
        kinds = set(getattr(config.get_text_config(), "layer_types", None) or ())
        model = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    except ValueError:  # several texts inside: music or speech
        model = None
    own_code = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    takes = inspect.signature(model.forward).parameters if model else {"position_ids"}
    why = None
    if getattr(config, "is_encoder_decoder", False) or (model is None and not own_code):
        why = "which is no decoder-only model of text"
    elif getattr(model, "_is_stateful", False):
        why = "whose state cannot be rolled back"
    elif model and cache_argument(model.forward) is None:
        why = "which keeps no key/value cache"
    elif kinds - LAYERS:
        why = f"whose {', '.join(sorted(kinds - LAYERS))} layers cannot be rolled back or cannot read a token tree"
    elif "position_ids" not in takes or getattr(config, "alibi", False):
        why = "which cannot be told the positions of its tokens"
    if why:
        raise ModelError(
            f"{checkpoint} is a `{config.model_type}` model, {why}",
            hint="use a transformer that keeps a key/value cache; Llama, Qwen3, Gemma and Mistral for four",
        )


def _check_complete(checkpoint: Checkpoint, model: PreTrainedModel, report: dict[str, Any]) -> None:
    """Refuse weights that do not belong to the configuration; the library would invent what is missing.

    Raises:
        ModelError: a weight is missing, or one is left over for a part that the model has.
    """
    parts = {re.sub(r"\.\d+", "", name) for name, _ in model.named_modules()}
    # What is left over for other parts (a vision tower, a value head) changes nothing.
    left = sorted(key for key in report["unexpected_keys"] if re.sub(r"\.\d+", "", key).rpartition(".")[0] in parts)
    for what, keys in (("missing", sorted(report["missing_keys"])), ("left over", left)):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise ModelError(
                f"the weights of {checkpoint} do not fit its config.json; {what}: `{keys[0]}`{more}",
                hint="download both again from the same place",
            )


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and warnings of the library; what matters is raised."""
    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()


def pick_device(device: str) -> torch.device:
    """Resolve "auto": the GPU where there is one.

    Raises:
        ModelError: there is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=device).item()
        return torch.device(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(f"cannot use device `{device}`: {_first_line(error)}", hint="use `--device auto`") from error


def pick_backend(backend: str, device: torch.device, quantization: str = "none") -> str:
    """Resolve "auto": graphs on a GPU, OpenVINO on a CPU where it is installed, torch elsewhere.

    Raises:
        ModelError: there is no such backend or quantization, or it is not installed, or not for this device.
    """
    for what, given, known in (("backend", backend, BACKENDS), ("quantization", quantization, QUANTIZATIONS)):
        if given not in known:
            raise ModelError(f"unknown {what} `{given}`", hint=did_you_mean(given, known))
    if quantization == "fp8" and device.type != "cuda":
        raise ModelError(f"weights in fp8 need a GPU, not `{device}`", hint="use `int8`, which takes as many bytes")
    installed = find_spec("openvino") is not None
    if backend == "openvino" and not installed:
        raise ModelError("OpenVINO is not installed", hint="`pip install 'foretoken[openvino]'`, or `--backend torch`")
    if backend == "openvino" and device.type != "cpu":
        raise ModelError(f"the backend `openvino` runs on a CPU, not on `{device}`", hint="use `--device cpu`")
    best = {"cpu": "openvino" if installed else "torch", "cuda": "graphs"}.get(device.type, "torch")
    return best if backend == "auto" else backend


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Resolve "auto": bfloat16 where the hardware multiplies it, float32 elsewhere.

    Raises:
        ModelError: there is no such dtype.
    """
    if dtype == "auto":
        native = torch.cpu._is_avx512_bf16_supported() if device.type == "cpu" else True
        return torch.bfloat16 if native else torch.float32
    if dtype in QUANTIZATIONS[1:]:
        raise ModelError(f"nothing is computed in {dtype}", hint=f"`--quantization {dtype}` compresses the weights")
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype `{dtype}`", hint=did_you_mean(dtype, ["auto", *DTYPES]))
    return DTYPES[dtype]


def _resolve(location: str, role: str) -> Path:
    """Local folder of a checkpoint, downloaded if need be."""
    scheme, colon, name = location.partition(":")
    known = sorted(entry.name for entry in BUILTIN.iterdir() if entry.is_dir()) if BUILTIN.is_dir() else []
    if colon and scheme == "builtin":
        if name not in known:
            raise ModelError(f"there is no built-in model `{name}`", hint=did_you_mean(name, known))
        return Path(str(BUILTIN / name / role))
    folder = os.path.expanduser(location)
    if os.path.isdir(folder):
        return Path(folder)
    if os.path.isfile(folder):
        raise ModelError(f"`{location}` is a file", hint="give the folder it is in")
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", location):
        raise ModelError(f"there is no folder `{location}`", hint="check the path; a hub id is written owner/name")
    try:
        return Path(snapshot_download(location, allow_patterns=FILES))
    except Exception as error:  # the library raises many kinds here
        hint = "check the name, or give a local folder"
        why = _first_line(error)
        if isinstance(error, GatedRepoError):
            hint = "accept its licence on its hub page, then log in with `hf auth login`"
        elif isinstance(error, RepositoryNotFoundError):
            why, hint = "it has no such model", "check the name; a private model needs `hf auth login`"
        elif isinstance(error, LocalEntryNotFoundError):
            why, hint = "it cannot be reached", "check the network and HF_HUB_OFFLINE, or give a local folder"
        if location in known:
            hint = f"did you mean `builtin:{location}`?"
        raise ModelError(
            f"cannot get {role} `{location}`: it is no local folder, and from the hub: {why}", hint=hint
        ) from error


def _weight_files(path: Path) -> list[Path]:
    """Safetensors files of a checkpoint, all there and each with a header that fits its size.

    Raises:
        ModelError: there are none, or one is missing or cut short.
    """
    index = path / "model.safetensors.index.json"
    found = [path / "model.safetensors"]
    if not found[0].is_file():
        if not index.is_file():
            raise ModelError(
                f"no model.safetensors in `{path}`",
                hint="other formats can run code when loaded; convert the weights with `save_pretrained`"
                if any(path.glob("*.bin")) or any(path.glob("*.pt*"))
                else "give a folder that has the weights, in one file or with model.safetensors.index.json",
            )
        try:
            found = [path / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise ModelError(f"cannot read `{index}`: {_first_line(error)}", hint=AGAIN) from error
    for file in found:
        if not file.is_file():
            raise ModelError(f"`{file}` is missing", hint=AGAIN)
        try:
            with safe_open(file, framework="pt") as weights:
                weights.keys()
        except (SafetensorError, OSError) as error:
            raise ModelError(f"`{file}` is corrupt: {_first_line(error)}", hint=AGAIN) from error
    return found


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
