"""A real architecture, as small as it gets, with random weights."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from foretoken.models.base import LanguageModel
from foretoken.models.cache import TensorCache
from foretoken.models.hf import ATTENTION, HFModel


class TinyLlama(HFModel):
    """A random Llama with grouped heads, in float32, whose logits differ enough to have opinions.

    Attributes:
        caches: every cache it made, the first first; as in `TableModel`.
    """

    def __init__(self, seed: int, vocab_size: int = 11, own_vocab_size: int | None = None) -> None:
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=own_vocab_size or vocab_size,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            initializer_range=0.3,
        )
        model = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION)
        super().__init__(model, config.max_position_embeddings, vocab_size)
        self.caches: list[TensorCache] = []

    def new_cache(self, rows: int) -> TensorCache:
        self.caches.append(super().new_cache(rows))
        return self.caches[-1]


def logits_after(model: LanguageModel, text: list[int]) -> Tensor:
    """Scores after a text that is read in one piece."""
    return model.forward(torch.tensor([text]), model.new_cache(1), last=1).logits[0, -1]
