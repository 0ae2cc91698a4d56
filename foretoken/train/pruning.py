"""A draft cut out of its target: the layers that change least are dropped, then the FFN channels that matter least.

References: Men et al. 2024, ShortGPT, https://arxiv.org/abs/2403.03853 (block influence);
Wang et al. 2024, CFSP, https://arxiv.org/abs/2409.13199 (channels). CFSP also gives every block a width of its own,
which no checkpoint of `transformers` has; here all blocks keep the same share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from foretoken.errors import ConfigError, ModelError
from foretoken.train.agreement import Text, padded

MULTIPLE = 32  # widths are multiples of this, for the sake of matrix kernels


@contextmanager
def _hearing(modules: Sequence[Any], heard: Callable[[int, Tensor, Any], None]) -> Any:
    """Report input and output of every call of some modules."""
    handles = [
        module.register_forward_hook(
            lambda _, args, kwargs, out, n=n: heard(n, _first(args, kwargs), out), with_kwargs=True
        )
        for n, module in enumerate(modules)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    found: Tensor = args[0] if args else kwargs["hidden_states"]
    return found


def blocks_of(model: Any) -> Any:
    """The blocks of a Llama-like model.

    Raises:
        ModelError: it is built otherwise.
    """
    blocks = getattr(model.base_model, "layers", None)
    gated = blocks is not None and all(
        hasattr(getattr(block, "mlp", None), name) for block in blocks for name in ("gate_proj", "up_proj", "down_proj")
    )
    if not gated:
        raise ModelError(
            f"cannot prune a `{model.config.model_type}` model",
            hint="Llama, Qwen, Mistral and Gemma are built as it takes",
        )
    return blocks


@torch.no_grad()
def block_influence(model: Any, texts: Sequence[Text]) -> list[float]:
    """Of every block, one minus the mean cosine of what goes in and what comes out.

    Args:
        model: of `transformers`.
        texts: to measure on; what a prompt says counts as much as the answer.
    """
    sums, blocks = [], blocks_of(model)
    sums = [0.0] * len(blocks)
    count = 0
    real = torch.zeros(0)

    def heard(n: int, before: Tensor, out: Any) -> None:
        after = out[0] if isinstance(out, tuple) else out
        cosine = functional.cosine_similarity(before.float(), after.float(), dim=-1).cpu()
        sums[n] += float((cosine * real).sum())

    with _hearing(blocks, heard):
        for ids, mask in _read(texts):
            real, count = mask, count + int(mask.sum())
            model.base_model(input_ids=ids.to(model.device), use_cache=False)
    return [1 - total / count for total in sums]


@torch.no_grad()
def channel_importance(model: Any, texts: Sequence[Text]) -> list[Tensor]:
    """Of every block, how much each FFN channel contributes.

    That is, over the outputs it goes to, its share of their weights' magnitude, times the norm of its activation.

    Returns:
        Per block, [C] float32.
    """
    downs = [block.mlp.down_proj for block in blocks_of(model)]
    squares = [torch.zeros(down.weight.shape[1]) for down in downs]
    real = torch.zeros(0)

    def heard(n: int, before: Tensor, out: Any) -> None:
        squares[n] += (before.float().cpu().square() * real[..., None]).sum((0, 1))

    with _hearing(downs, heard):
        for ids, mask in _read(texts):
            real = mask
            model.base_model(input_ids=ids.to(model.device), use_cache=False)
    shares = [(w := down.weight.float().abs().cpu()) / w.sum(1, keepdim=True) for down in downs]
    return [share.sum(0) * square.sqrt() for share, square in zip(shares, squares, strict=True)]


def prune(model: Any, texts: Sequence[Text], layers: int, ffn: float) -> tuple[Any, dict[str, Any]]:
    """A smaller model of the same kind.

    Args:
        model: of `transformers`; it is left as it is.
        texts: to measure on.
        layers: blocks to keep.
        ffn: share of the FFN channels to keep, rounded to a multiple of 32.

    Returns:
        The model.
        `kept_layers`, `block_influence` and `ffn_width`, for the card.

    Raises:
        ConfigError: more is to be kept than there is, or nothing.
        ModelError: the model is not built as this needs.
    """
    blocks = blocks_of(model)
    if not 1 <= layers <= len(blocks):
        raise ConfigError(f"option `--layers` cannot be {layers}", hint=f"the target has {len(blocks)}")
    if not 0 < ffn <= 1:
        raise ConfigError(f"option `--ffn` cannot be {ffn}", hint="it is the share of channels to keep, at most 1")
    influence = block_influence(model, texts)
    kept = sorted(sorted(range(len(blocks)), key=lambda n: -influence[n])[:layers])
    importance = channel_importance(model, texts)
    width = min(len(importance[0]), max(round(len(importance[0]) * ffn / MULTIPLE), 1) * MULTIPLE)
    config = deepcopy(model.config)
    config.num_hidden_layers, config.intermediate_size = layers, width
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[n] for n in kept]
    made = type(model)(config).to(model.device)
    cut = dict(model.state_dict())
    for n in kept:
        best = importance[n].topk(width).indices.sort().values
        prefix = _prefix(cut, n)
        for name, axis in (("gate_proj", 0), ("up_proj", 0), ("down_proj", 1)):
            for part in ("weight", "bias"):
                key = f"{prefix}mlp.{name}.{part}"
                if key in cut and (part == "weight" or axis == 0):
                    cut[key] = cut[key].index_select(axis if part == "weight" else 0, best.to(cut[key].device))
    wanted = {}
    for key in made.state_dict():
        source = key
        for new, old in enumerate(kept):
            if key.startswith(place := _prefix(made.state_dict(), new)):
                source = _prefix(cut, old) + key.removeprefix(place)
        wanted[key] = cut[source]
    made.load_state_dict(wanted)
    return made, {"kept_layers": kept, "block_influence": influence, "ffn_width": width}


def _prefix(weights: dict[str, Tensor], block: int) -> str:
    """What the names of a block's weights begin with."""
    marker = f"layers.{block}."
    return next(name[: name.index(marker)] + marker for name in weights if marker in name)


def _read(texts: Sequence[Text], batch: int = 8) -> Any:
    """[R, N] ids and [R, N] float, 1 at what is no padding."""
    for start in range(0, len(texts), batch):
        some = texts[start : start + batch]
        ids, _ = padded(some)
        lengths = torch.tensor([len(text.prompt) + len(text.answer) for text in some])
        yield ids, (torch.arange(ids.shape[1]) < lengths[:, None]).float()
