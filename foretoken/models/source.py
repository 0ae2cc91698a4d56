"""Where a checkpoint comes from, and everything that can be known about it without loading its weights."""

from __future__ import annotations

import json
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from foretoken.errors import ModelError, did_you_mean
from foretoken.models.hf import ATTENTION, HFModel
from foretoken.tokenizer import Tokenizer

BUILTIN = files("foretoken") / "data" / "models"
FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.py"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Checkpoint:
    """A causal language model in Hugging Face format.

    Args:
        location: `builtin:NAME`, a local folder, or a hub id (`owner/name`).
        role: "target" or "draft"; a built-in pair holds both.
        trust_remote_code: run Python code that comes with the checkpoint.

    Raises:
        ModelError: there is nothing usable at the location.
    """

    def __init__(self, location: str, role: str, *, trust_remote_code: bool = False) -> None:
        self.location = location
        self.role = role
        self._trust = trust_remote_code
        self.path = _resolve(location, role)
        if not (self.path / "config.json").is_file():
            raise ModelError(f"no config.json in `{self.path}`", hint="give the folder of a Hugging Face checkpoint")
        self.weight_files = _weight_files(self.path)

    @cached_property
    def config(self) -> Any:
        """The checkpoint's `transformers` configuration.

        Raises:
            ModelError: it cannot be read, or wants to run code that was not allowed.
        """
        try:
            return AutoConfig.from_pretrained(self.path, trust_remote_code=self._trust)
        except (ValueError, OSError, KeyError) as error:
            hint = "add `--trust-remote-code` if you trust its author" if "trust_remote_code" in str(error) else None
            raise ModelError(
                f"cannot read the configuration of {self.role} `{self.location}`: {_first_line(error)}",
                hint=hint or "is it a causal language model this version of transformers knows?",
            ) from error

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer.

        Raises:
            ModelError: there is none, or it cannot be read.
        """
        try:
            return Tokenizer(AutoTokenizer.from_pretrained(self.path, trust_remote_code=self._trust))
        except Exception as error:  # the library raises many kinds here
            raise ModelError(
                f"cannot read the tokenizer of {self.role} `{self.location}`: {_first_line(error)}",
                hint="the folder needs a tokenizer.json, or the files it is made from",
            ) from error

    @property
    def max_length(self) -> int:
        """Longest sequence the model can read, in tokens."""
        text = self.config.get_text_config()
        for name in ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"):
            if isinstance(length := getattr(text, name, None), int):
                return length
        raise ModelError(f"{self.role} `{self.location}` does not say how long its context is")

    @property
    def stop_token_ids(self) -> frozenset[int]:
        """Ids that end a text: those of generation_config.json, else of config.json."""
        path = self.path / "generation_config.json"
        found = json.loads(path.read_text()).get("eos_token_id") if path.is_file() else None
        found = self.config.get_text_config().eos_token_id if found is None else found
        return frozenset([] if found is None else [found] if isinstance(found, int) else found)

    def load(self, dtype: str = "auto", device: str = "auto", vocab_size: int | None = None) -> HFModel:
        """Load the weights.

        Args:
            dtype: "auto", "float32", "bfloat16" or "float16".
            device: "auto", or what torch calls it.
            vocab_size: logits to return, when a draft must follow its target.

        Raises:
            ModelError: the weights do not load, or the model cannot be rolled back.
        """
        where = pick_device(device)
        check_rollback(self)
        try:
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                self.path,
                dtype=pick_dtype(dtype, where),
                attn_implementation=ATTENTION,
                use_safetensors=True,
                trust_remote_code=self._trust,
            )
        except (ValueError, OSError, KeyError, RuntimeError, SafetensorError) as error:
            raise ModelError(
                f"cannot load {self.role} `{self.location}`: {_first_line(error)}",
                hint="is it a causal language model this version of transformers knows?",
            ) from error
        return HFModel(model.to(where), self.max_length, vocab_size)


def check_rollback(checkpoint: Checkpoint) -> None:
    """Refuse a model whose state cannot be rolled back; needs the configuration alone."""


def pick_device(device: str) -> torch.device:
    """Resolve "auto": the GPU where there is one.

    Raises:
        ModelError: there is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"cannot use device `{device}`: {_first_line(error)}", hint="use `--device auto`") from error


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Resolve "auto": bfloat16 where the hardware multiplies it, float32 elsewhere.

    Raises:
        ModelError: there is no such dtype.
    """
    if dtype == "auto":
        native = torch.cpu._is_avx512_bf16_supported() if device.type == "cpu" else True
        return torch.bfloat16 if native else torch.float32
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype `{dtype}`", hint=did_you_mean(dtype, ["auto", *DTYPES]))
    return DTYPES[dtype]


def _resolve(location: str, role: str) -> Path:
    """Local folder of a checkpoint, downloaded if need be."""
    scheme, colon, name = location.partition(":")
    if colon and scheme == "builtin":
        known = sorted(entry.name for entry in BUILTIN.iterdir() if entry.is_dir()) if BUILTIN.is_dir() else []
        if name not in known:
            raise ModelError(f"there is no built-in model `{name}`", hint=did_you_mean(name, known))
        return Path(str(BUILTIN / name / role))
    if Path(location).is_dir():
        return Path(location)
    if location.startswith((".", "/", "~")) or location.count("/") > 1 or not location.strip():
        raise ModelError(f"there is no folder `{location}`", hint="check the path; a hub id is written owner/name")
    try:
        return Path(snapshot_download(location, allow_patterns=FILES))
    except Exception as error:  # offline, unknown, gated: the library raises many kinds
        raise ModelError(
            f"cannot get {role} `{location}` from the hub: {_first_line(error)}",
            hint="check the name and the network, or give a local folder",
        ) from error


def _weight_files(path: Path) -> list[Path]:
    """Safetensors files of a checkpoint, each with a readable header."""
    found = sorted(path.glob("*.safetensors"))
    if not found:
        raise ModelError(
            f"no .safetensors file in `{path}`",
            hint="other formats can run code when loaded; convert the weights with `save_pretrained`",
        )
    for file in found:
        try:
            with safe_open(file, framework="pt") as weights:
                weights.keys()
        except SafetensorError as error:
            raise ModelError(
                f"`{file}` is corrupt: {_first_line(error)}", hint="download it again; it may have been cut short"
            ) from error
    return found


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
