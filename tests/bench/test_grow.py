"""Grown targets: the same logits, at the cost they are named for, made once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel

from foretoken.bench.grow import FAMILIES, Growth, grow
from foretoken.errors import ConfigError, ModelError
from foretoken.models.source import Checkpoint
from tests.models.families import build, config

VOCAB = 64
# What each family may say beyond its sizes that growing has to respect.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "tied": ("llama", {"tie_word_embeddings": True}),
    "one key head": ("llama", {"num_key_value_heads": 1}),
    "window": ("mistral", {"sliding_window": 5}),
    "query biases": ("qwen2", {}),
    "some windows": ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "norms of heads": ("qwen3", {"head_dim": 16}),
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "foretoken" / "grown"


def saved(folder: Path, kind: str, dtype: torch.dtype = torch.float32, **settings: Any) -> Checkpoint:
    build(config(kind, **settings)).to(dtype).save_pretrained(folder)
    return Checkpoint(str(folder), "target")


def read(folder: Path) -> PreTrainedModel:
    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not [key for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in report[kind]]
    return model.eval()


@torch.no_grad()
def difference(one: Path, other: Path, vocab: int = VOCAB) -> float:
    """Largest difference of logits in float32, over one text that is longer than every window."""
    ids = torch.randint(vocab, (1, 40), generator=torch.Generator().manual_seed(0))
    return float((read(one)(input_ids=ids).logits - read(other)(input_ids=ids).logits).abs().max())


def block_weights(model: PreTrainedModel) -> int:
    return sum(p.numel() for name, p in model.named_parameters() if ".layers." in name and p.ndim == 2)


def test_every_family_is_tried() -> None:
    assert {kind for kind, _ in MODELS.values()} == set(FAMILIES)


@pytest.mark.parametrize("growth", ["4x", "18x"])  # width alone; width that bfloat16 cannot divide by, and depth
@pytest.mark.parametrize("name", MODELS)
def test_logits_stay_and_blocks_multiply(name: str, growth: str, tmp_path: Path) -> None:
    kind, settings = MODELS[name]
    checkpoint = saved(tmp_path / "small", kind, torch.bfloat16, **settings)
    folder = grow(checkpoint, Growth.parse(growth))
    assert 0 < difference(checkpoint.path, folder) < 1e-4
    small, large = read(checkpoint.path), read(folder)
    assert block_weights(large) == Growth.parse(growth).factor * block_weights(small)
    assert large.config.vocab_size == VOCAB


def test_the_built_in_target_grows() -> None:
    """A trained model with a tokenizer, stop tokens and a template; weights stay in half precision."""
    checkpoint = Checkpoint("builtin:pair", "target")
    folder = grow(checkpoint, Growth.parse("8x"))
    assert 0 < difference(checkpoint.path, folder, 4096) < 1e-4
    large = Checkpoint(str(folder), "target")
    assert large.stop_token_ids == checkpoint.stop_token_ids
    assert large.tokenizer.encode("Hi") == checkpoint.tokenizer.encode("Hi")
    assert (large.config.num_hidden_layers, large.config.hidden_size) == (12, 768)
    with safe_open(large.weight_files[1], framework="pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.bfloat16}  # noqa: SIM118


def test_added_blocks_add_nothing_but_cost(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "small", "llama")
    folder = grow(checkpoint, Growth.parse("3x"))
    assert difference(checkpoint.path, folder) == 0
    blocks = read(folder).model.layers
    silent = [not (b.self_attn.o_proj.weight.any() or b.mlp.down_proj.weight.any()) for b in blocks]
    assert silent == [False, True, True] * 2
    assert all(block.mlp.up_proj.weight.any() for block in blocks)


def test_a_multiple_is_as_wide_as_it_can_be() -> None:
    found = {text: Growth.parse(text) for text in ("1x", "2x", "4x", "12x", "16x", "128x")}
    assert [(g.width, g.depth) for g in found.values()] == [(1, 1), (1, 2), (2, 1), (2, 3), (4, 1), (8, 2)]
    assert [str(g) for g in found.values()] == list(found)


@pytest.mark.parametrize("text", ["", "4", "x", "0x", "-4x", "2.5x", "99999x", "4x4"])
def test_what_is_no_multiple_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="cannot grow") as error:
        Growth.parse(text)
    assert error.value.hint


def test_a_grown_target_is_made_once(tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, twice = saved(tmp_path / "small", "llama"), Growth.parse("2x")
    assert grow(checkpoint, Growth.parse("1x")) == checkpoint.path
    assert not here.exists()
    first = grow(checkpoint, twice)
    with monkeypatch.context() as patch:
        patch.setattr("foretoken.bench.grow._write", lambda *_: pytest.fail("written again"))
        assert grow(checkpoint, twice) == first
    assert grow(checkpoint, Growth.parse("4x")) != first
    # The same weights with another base are another model.
    settings = json.loads((checkpoint.path / "config.json").read_text())
    (checkpoint.path / "config.json").write_text(json.dumps(settings | {"rope_parameters": {"rope_theta": 5e3}}))
    assert grow(Checkpoint(str(checkpoint.path), "target"), twice) != first
    # A damaged one is made again.
    file = first / "model-00001.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    shutil.rmtree(checkpoint.path)
    assert difference(grow(saved(tmp_path / "small", "llama"), twice), tmp_path / "small") == 0


def test_an_interrupted_growth_leaves_nothing(tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = saved(tmp_path / "small", "llama")

    def interrupted(*_: Any) -> None:
        (next(here.iterdir()) / "model-00000.safetensors").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("foretoken.bench.grow.save_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            grow(checkpoint, Growth.parse("2x"))
    assert list(here.iterdir()) == []
    assert difference(grow(checkpoint, Growth.parse("2x")), checkpoint.path) == 0


def test_a_full_disk_is_said_before_anything_is_written(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = saved(tmp_path / "small", "llama")
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(ModelError, match="kept 4x as large: it needs") as error:
        grow(checkpoint, Growth.parse("4x"))
    assert "XDG_CACHE_HOME" in str(error.value.hint)
    assert list(here.iterdir()) == []


def test_what_does_not_grow_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="`gemma` model, which does not grow") as error:
        grow(saved(tmp_path / "gemma", "gemma"), Growth.parse("4x"))
    assert "llama" in str(error.value.hint)
    bare = saved(tmp_path / "bare", "llama")
    build(config("llama")).model.save_pretrained(bare.path)
    with pytest.raises(ModelError, match=r"no `model.embed_tokens.weight`"):
        grow(bare, Growth.parse("4x"))
    quantised = saved(tmp_path / "quantised", "llama")
    quantised.config.quantization_config = {"quant_method": "fp8"}
    with pytest.raises(ModelError, match="quantised"):
        grow(quantised, Growth.parse("4x"))
