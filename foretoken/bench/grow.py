"""Grow a trained target without changing what it says: acceptance of a trained pair at the cost of a large target.

Width is cloned n times: hidden units, heads and intermediate units repeat, and every matrix is tiled n x n and divided
by n, so that each copy computes what the original did (HyperCloning, https://arxiv.org/abs/2409.12903). Depth grows by
blocks that add nothing to the residual stream (Masked Structural Growth, https://arxiv.org/abs/2305.02869). What comes
out is a plain Hugging Face checkpoint, made once and kept on disk.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from foretoken.errors import ConfigError, ModelError
from foretoken.models.source import Checkpoint
from foretoken.models.store import check_space, home, keep

FORMAT = 1  # of what is kept; a new one leaves old entries alone
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
INDEX = "model.safetensors.index.json"
LARGEST = 10_000
LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
COMPUTED = "rotary_emb.inv_freq"  # which old checkpoints hold
PER_HEAD = ("q_norm.weight", "k_norm.weight")
INTO_RESIDUAL = ("self_attn.o_proj.", "mlp.down_proj.")
BESIDE = {".json", ".jinja", ".model", ".txt"}  # tokenizer, chat template, stop tokens


@dataclass(frozen=True, slots=True)
class Growth:
    """How many times over.

    Attributes:
        width: n, which multiplies the weights of a block by n².
        depth: how many blocks each block becomes.
    """

    width: int
    depth: int

    @classmethod
    def parse(cls, text: str) -> Growth:
        """Read `16x`, a multiple of the blocks' weights: as much of it in width as is a square, the rest in depth.

        Raises:
            ConfigError: it is no such multiple.

        Example:
            >>> Growth.parse("16x"), Growth.parse("128x")
            (Growth(width=4, depth=1), Growth(width=8, depth=2))
        """
        match = re.fullmatch(r"([1-9]\d{0,4})x", text)
        if match is None or int(match[1]) > LARGEST:
            raise ConfigError(
                f"a target cannot grow `{text}`", hint=f"give multiples from 1x to {LARGEST}x, such as `4x,16x`"
            )
        factor = int(match[1])
        width = max(n for n in range(1, int(factor**0.5) + 1) if factor % (n * n) == 0)
        return cls(width, factor // width**2)

    def __str__(self) -> str:
        return f"{self.factor}x"

    @property
    def factor(self) -> int:
        """By how much the weights of all blocks together grow."""
        return self.width**2 * self.depth

    def to_json(self) -> dict[str, int]:
        """All of it."""
        return {"factor": self.factor, **asdict(self)}


def grow(checkpoint: Checkpoint, growth: Growth) -> Path:
    """Folder of a checkpoint that says what another one says, and costs `growth.factor` times as much per block.

    Weights keep their type where dividing by the width is exact in it, else they become float32.

    Raises:
        ModelError: the model is of another family, or the disk is full.
    """
    if growth.factor == 1:
        return checkpoint.path
    _check_family(checkpoint)
    folder = home("grown") / _key(checkpoint, growth)
    if folder.exists():
        try:
            return Checkpoint(str(folder), "target").path
        except ModelError:  # damaged
            shutil.rmtree(folder, ignore_errors=True)
    if why := keep(folder, INDEX, lambda place: _write(checkpoint, growth, place)):
        raise ModelError(
            f"{checkpoint} cannot be kept {growth} as large: {why}",
            hint="free some space, or set XDG_CACHE_HOME to a folder on a larger disk",
        )
    return folder


def grown(name: str, weight: Tensor, width: int) -> Tensor:
    """A weight of a model whose width is cloned.

    Args:
        name: what Hugging Face calls it.
        weight: [out, in] or [units] float.
        width: how many times each unit appears.

    Returns:
        [out * width, in * width] or [units * width] float. Embeddings keep their vocabulary, norms of single heads
        their size.
    """
    if weight.ndim == 1:
        return weight if name.endswith(PER_HEAD) else weight.repeat(width)
    if name == EMBEDDING:
        return weight.repeat(1, width)
    return weight.repeat(1 if name == HEAD else width, width) / width


def _check_family(checkpoint: Checkpoint) -> None:
    """Refuse what does more to its units than repeat, norm and multiply them.

    Raises:
        ModelError: the model is of another family, or its weights are quantised.
    """
    kind = checkpoint.config.model_type
    if kind not in FAMILIES:
        raise ModelError(f"{checkpoint} is a `{kind}` model, which does not grow", hint=f"known: {', '.join(FAMILIES)}")
    if getattr(checkpoint.config, "quantization_config", None):
        raise ModelError(f"the weights of {checkpoint} are quantised", hint="give the checkpoint they were made from")


def _key(checkpoint: Checkpoint, growth: Growth) -> str:
    """Name of what is kept: a hash of everything it depends on, with the growth for those who look."""
    rest = [(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in _beside(checkpoint.path)]
    content = json.dumps([FORMAT, checkpoint.fingerprint, sorted(rest)])
    return f"{hashlib.sha256(content.encode()).hexdigest()[:32]}-{growth}"


def _beside(path: Path) -> list[Path]:
    return [file for file in path.iterdir() if file.suffix in BESIDE and file.name != INDEX]


def _write(checkpoint: Checkpoint, growth: Growth, place: Path) -> None:
    """Write the grown checkpoint, a file per layer, so that no more than a layer of it is ever in memory."""
    for file in _beside(checkpoint.path):
        shutil.copyfile(file, place / file.name)
    weights, size, files = Weights(checkpoint), 0, dict[str, str]()
    exact = growth.width & (growth.width - 1) == 0
    dtype = weights.dtype if exact else torch.float32
    raw = json.loads((checkpoint.path / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(raw | _config(checkpoint.config, growth, dtype), indent=2) + "\n")
    bytes_before = sum(file.stat().st_size for file in checkpoint.weight_files)
    check_space(place, bytes_before * growth.factor * dtype.itemsize // weights.dtype.itemsize)
    for number, names in enumerate(weights.groups(growth.depth)):
        shard, tensors = f"model-{number:05}.safetensors", dict[str, Tensor]()
        for name, (source, silent) in names.items():
            weight = grown(name, weights[source].to(dtype), growth.width)
            tensors[name] = torch.zeros_like(weight) if silent else weight.contiguous()
            size += tensors[name].nbytes
        save_file(tensors, place / shard, {"format": "pt"})
        files |= dict.fromkeys(tensors, shard)
    (place / INDEX).write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": files}))


def _config(config: Any, growth: Growth, dtype: torch.dtype) -> dict[str, Any]:
    """What changes in the configuration."""
    sizes = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kinds = getattr(config, "layer_types", None)
    return {
        **{name: getattr(config, name) * growth.width for name in sizes},
        "num_hidden_layers": config.num_hidden_layers * growth.depth,
        "head_dim": head_dim,
        "tie_word_embeddings": False,  # the input's copies are whole, the output's are divided
        "dtype": str(dtype).removeprefix("torch."),
        **({"layer_types": [kind for kind in kinds for _ in range(growth.depth)]} if kinds else {}),
    }


class Weights:
    """The weights of a checkpoint, read one at a time.

    Attributes:
        dtype: of most of them.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._home: dict[str, Any] = {}
        for path in checkpoint.weight_files:
            file: Any = safe_open(path, framework="pt")
            self._home |= {name: file for name in file.keys() if not name.endswith(COMPUTED)}  # noqa: SIM118
        if EMBEDDING not in self._home:
            raise ModelError(
                f"the weights of {checkpoint} have no `{EMBEDDING}`",
                hint="save the causal language model, not the bare transformer inside",
            )
        self.dtype = self[EMBEDDING].dtype

    def __getitem__(self, name: str) -> Tensor:
        weight: Tensor = self._home[name].get_tensor(name) if name in self._home else self[EMBEDDING]  # tied
        return weight

    def groups(self, depth: int) -> Iterator[dict[str, tuple[str, bool]]]:
        """By file to write: name -> the weight it is made from, and whether it is silenced (zero)."""
        layers: dict[int, list[str]] = {}
        rest = {HEAD}
        for name in self._home:
            if match := LAYER.fullmatch(name):
                layers.setdefault(int(match[1]), []).append(match[2])
            else:
                rest.add(name)
        yield {name: (name, False) for name in sorted(rest)}
        for layer, names in sorted(layers.items()):
            for copy in range(depth):
                yield {
                    f"model.layers.{layer * depth + copy}.{name}": (
                        f"model.layers.{layer}.{name}",
                        copy > 0 and name.startswith(INTO_RESIDUAL),
                    )
                    for name in names
                }
