"""What is cut out of a model is what changes least, and the rest is what it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

from foretoken.errors import ConfigError, ModelError
from foretoken.train.agreement import Text
from foretoken.train.pruning import block_influence, channel_importance, prune
from foretoken.train.sizes import Size, llama

TEXTS = [Text([1, 2, 3], [4, 5, 6, 7], 0.0), Text([8], [9, 10], 1.0)]
IDS = torch.tensor([[1, 2, 3, 4, 5, 6, 7]])


def made(seed: int = 0, layers: int = 4) -> Any:
    torch.manual_seed(seed)
    return llama(Size(64, layers), 64).eval()


def silence(block: Any) -> None:
    """Make a block pass on what it reads."""
    torch.nn.init.zeros_(block.self_attn.o_proj.weight)
    torch.nn.init.zeros_(block.mlp.down_proj.weight)


def test_a_block_that_does_nothing_has_no_influence_and_goes_first() -> None:
    model = made()
    silence(model.model.layers[1])
    influence = block_influence(model, TEXTS)
    assert influence[1] == pytest.approx(0, abs=1e-6)
    assert all(one > 1e-4 for n, one in enumerate(influence) if n != 1)
    smaller, about = prune(model, TEXTS, 3, 1.0)
    assert about["kept_layers"] == [0, 2, 3]
    assert about["block_influence"] == influence
    torch.testing.assert_close(smaller(IDS).logits, model(IDS).logits)


def test_padding_does_not_count() -> None:
    model = made()
    alone = [block_influence(model, [text])[0] for text in TEXTS]
    sizes = [7, 3]
    together = sum(a * s for a, s in zip(alone, sizes, strict=True)) / sum(sizes)
    assert block_influence(model, TEXTS)[0] == pytest.approx(together, abs=1e-6)


def test_channels_that_nobody_reads_are_cut_without_a_trace() -> None:
    model = made()
    unread = list(range(0, 192, 2))
    for block in model.model.layers:
        block.mlp.down_proj.weight.data[:, unread] = 0
    importance = channel_importance(model, TEXTS)
    assert all(one[unread].max() == 0 < one[1] for one in importance)
    smaller, about = prune(model, TEXTS, 4, 0.5)
    assert about["ffn_width"] == 96
    assert smaller.config.intermediate_size == 96
    torch.testing.assert_close(smaller(IDS).logits, model(IDS).logits)


def test_importance_is_share_of_weight_times_norm_of_activation() -> None:
    model = made(layers=1)
    heard: list[torch.Tensor] = []
    down = model.model.layers[0].mlp.down_proj
    down.register_forward_pre_hook(lambda _, args: heard.append(args[0].detach()))
    (importance,) = channel_importance(model, TEXTS[:1])
    weight = down.weight.detach().abs()
    expected = (weight / weight.sum(1, keepdim=True)).sum(0) * heard[0][0].norm(dim=0)
    torch.testing.assert_close(importance, expected)


def test_another_architecture_with_kinds_of_layers() -> None:
    torch.manual_seed(0)
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    config = Qwen3Config(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=3, **heads)
    smaller, about = prune(Qwen3ForCausalLM(config).eval(), TEXTS, 2, 0.5)
    assert len(smaller.config.layer_types) == len(about["kept_layers"]) == 2
    assert smaller(IDS).logits.shape == (1, 7, 64)


def test_what_cannot_be_pruned_is_refused() -> None:
    for layers, ffn, message in ((5, 1.0, "--layers"), (0, 1.0, "--layers"), (2, 0.0, "--ffn"), (2, 1.5, "--ffn")):
        with pytest.raises(ConfigError, match=message):
            prune(made(), TEXTS, layers, ffn)
    other = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2, n_positions=32))
    with pytest.raises(ModelError, match="cannot prune a `gpt2`"):
        prune(other, TEXTS, 1, 1.0)
