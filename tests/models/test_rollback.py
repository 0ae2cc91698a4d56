"""Models that cannot be rolled back are refused from their configuration alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING

from foretoken.errors import ModelError
from foretoken.models.source import Checkpoint, check_rollback

from .families import FAMILIES, config

# Model type -> settings, and why it is refused.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "mamba": ({}, "state cannot be rolled back"),
    "mamba2": ({}, "state cannot be rolled back"),
    "falcon_mamba": ({}, "state cannot be rolled back"),
    "rwkv": ({}, "state cannot be rolled back"),
    "recurrent_gemma": ({}, "state cannot be rolled back"),
    "jamba": ({}, "state cannot be rolled back"),
    "bamba": ({}, "state cannot be rolled back"),
    "zamba": ({}, "state cannot be rolled back"),
    "falcon_h1": ({}, "state cannot be rolled back"),
    "granitemoehybrid": ({}, "state cannot be rolled back"),
    "qwen3_next": ({}, "state cannot be rolled back"),
    "minimax": ({}, "linear_attention layers"),
    "lfm2": ({"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2}, "conv layers"),
    "llama4_text": ({}, "chunked_attention layers"),
    "deepseek_v32": ({}, "indexed_attention layers"),
    "xlnet": ({}, "no key/value cache"),
    "bloom": ({}, "told the positions"),
    "mpt": ({}, "told the positions"),
    "falcon": ({"alibi": True}, "told the positions"),
    "t5": ({}, "no decoder-only model"),
    "bart": ({}, "no decoder-only model"),
    "whisper": ({}, "no decoder-only model"),
    "clip": ({}, "no decoder-only model"),
    "qwen2_vl": ({}, "no decoder-only model"),
}


@pytest.mark.parametrize("model_type", REFUSED)
def test_refused_by_name_before_weights_load(model_type: str, tmp_path: Path) -> None:
    settings, why = REFUSED[model_type]
    CONFIG_MAPPING[model_type](**settings).save_pretrained(tmp_path)
    save_file({"nothing": torch.zeros(1)}, tmp_path / "model.safetensors")  # no model would load from it
    with pytest.raises(ModelError, match=f"target `{tmp_path}` is a `{model_type}` model, .*{why}") as caught:
        Checkpoint(str(tmp_path), "target")
    assert "key/value cache" in str(caught.value.hint)


@pytest.mark.parametrize("name", FAMILIES)
def test_supported_families_pass(name: str, tmp_path: Path) -> None:
    model_type, settings = FAMILIES[name]
    config(model_type, **settings).save_pretrained(tmp_path)
    save_file({"nothing": torch.zeros(1)}, tmp_path / "model.safetensors")
    check_rollback(Checkpoint(str(tmp_path), "target"))
