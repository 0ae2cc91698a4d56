"""Tiny random models of many families."""

from __future__ import annotations

import functools
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from foretoken.models.hf import HFModel, adapt

VOCAB = 64
MAX_LENGTH = 64
WINDOW = 5
ALTERNATING = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": MAX_LENGTH,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    # Names of the same in older families, and what others need to be small.
    "n_inner": 48,
    "ffn_dim": 48,
    "word_embed_proj_dim": 32,
    "rotary_dim": 4,
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}

# Name -> model type and what its configuration says beyond the sizes.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama_yarn": ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "qwen3_moe": ("qwen3_moe", {}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral_window": ("mistral", {"sliding_window": WINDOW}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", {**ALTERNATING, "attn_logit_softcapping": 2.0}),
    "gemma3": ("gemma3_text", ALTERNATING),
    "phi": ("phi", {}),
    "phi3": ("phi3", {"sliding_window": None}),
    "phi3_window": ("phi3", {"sliding_window": WINDOW}),
    "gpt2": ("gpt2", {}),
    "gpt_bigcode": ("gpt_bigcode", {}),  # one key head for all
    "gpt_neox": ("gpt_neox", {}),
    "gpt_oss": ("gpt_oss", ALTERNATING),  # attention sinks
    "opt": ("opt", {}),  # learned positions with an offset
    "falcon": ("falcon", {}),
    "gptj": ("gptj", {}),
    "stablelm": ("stablelm", {}),
    "nemotron": ("nemotron", {}),
    "olmo2": ("olmo2", {}),
    "smollm3": ("smollm3", {"no_rope_layer_interval": 2}),
    "starcoder2": ("starcoder2", {"sliding_window": WINDOW}),
    "deepseek_v3": (  # keys and values of different sizes
        "deepseek_v3",
        {
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 16,
            "n_routed_experts": 4,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
        },
    ),
    "gemma3n": (  # layers that use the keys of others
        "gemma3n_text",
        {
            "num_hidden_layers": 4,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": VOCAB,
            "laurel_rank": 4,
            "activation_sparsity_pattern": [0.0] * 4,
            "altup_num_inputs": 2,
        },
    ),
}
# These do not hand our mask down to their attention, and get it as their own; until 5.23 of the library, gptj as well.
THROUGH_ATTENTION_MASK = {"falcon", "stablelm", "nemotron"}


def config(model_type: str, **settings: Any) -> PreTrainedConfig:
    """A configuration of the usual small sizes; names a family does not know are left out."""
    kind = CONFIG_MAPPING[model_type]
    known = kind()
    small = {
        name: value
        for name, value in SIZES.items()
        if (hasattr(known, name) or name in kind.attribute_map) and not isinstance(getattr(kind, name, None), property)
    }
    return kind(**(small | settings))


def build(config: PreTrainedConfig, attention: str = "eager") -> PreTrainedModel:
    """A model with random weights, large enough for logits and attention to be far from uniform."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32)
        with torch.no_grad():
            for weight in model.parameters():
                noise = torch.randn(weight.shape)
                weight.copy_(noise * 1.2 / weight.shape[-1] ** 0.5 if weight.dim() > 1 else weight + 0.1 * noise)
    return model.eval()


@functools.cache
def pair(name: str) -> tuple[PreTrainedModel, HFModel]:
    """A family as the library runs it, and the same weights behind our interface."""
    model_type, settings = FAMILIES[name]
    return build(config(model_type, **settings)), adapt(build(config(model_type, **settings)), MAX_LENGTH)


@functools.cache
def converted(name: str, quantization: str) -> tuple[PreTrainedModel, Any]:
    """As `pair`, with the second one on OpenVINO, and the weights of both rounded as `quantization` says."""
    from foretoken.models.openvino import OpenVINOModel
    from foretoken.models.openvino_graph import trace
    from foretoken.models.openvino_weights import join, pack, round_weights

    model_type, settings = FAMILIES[name]
    theirs, ours = (build(config(model_type, **settings)) for _ in range(2))
    packed = {}
    if quantization != "none":
        for model in (theirs, ours):
            packed = round_weights(model, quantization)
    graph = trace(ours, MAX_LENGTH)
    pack(graph, packed)
    join(graph)
    return theirs, OpenVINOModel(graph, torch.float32, MAX_LENGTH)
