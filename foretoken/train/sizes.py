"""Sizes of models made from scratch: a ladder of pairs, and which of them a budget affords."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CONTEXT = 256  # tokens a model reads at once in training
LONGEST = 2048  # and the longest text it takes
TOKENS_PER_WEIGHT = 8  # read per weight outside the embedding; 20 would be best for one pass over plenty of text


@dataclass(frozen=True, slots=True)
class Size:
    """A Llama-architecture model.

    Attributes:
        width: of the hidden state.
        layers: how many.
    """

    width: int
    layers: int

    @property
    def num_weights(self) -> int:
        """Weights outside the embedding, roughly."""
        return 11 * self.width**2 * self.layers

    @property
    def learning_rate(self) -> float:
        """Peak rate; wider models take smaller steps."""
        return float(min(4e-3, 3e-3 * (128 / self.width) ** 0.75))


@dataclass(frozen=True, slots=True)
class Rung:
    """A target, a draft of about an eighth of its cost, and their vocabulary."""

    target: Size
    draft: Size
    vocab_size: int


LADDER = (
    Rung(Size(64, 2), Size(32, 1), 1024),
    Rung(Size(96, 3), Size(64, 1), 1024),
    Rung(Size(128, 4), Size(64, 1), 2048),
    Rung(Size(192, 4), Size(128, 1), 2048),
    Rung(Size(256, 4), Size(128, 2), 4096),
    Rung(Size(320, 5), Size(192, 2), 4096),
    Rung(Size(384, 6), Size(256, 2), 4096),
    Rung(Size(512, 8), Size(256, 2), 8192),
    Rung(Size(640, 10), Size(320, 2), 8192),
    Rung(Size(768, 12), Size(384, 2), 8192),
)


def afforded(tokens_for: Callable[[Rung], float]) -> Rung:
    """The largest pair whose target reads enough; the smallest where none does.

    Args:
        tokens_for: tokens that a pair could read within the budget.
    """
    chosen = LADDER[0]
    for rung in LADDER:
        if tokens_for(rung) < TOKENS_PER_WEIGHT * rung.target.num_weights:
            break
        chosen = rung
    return chosen


def llama(size: Size, vocab_size: int, **special: Any) -> Any:
    """A freshly made Llama-architecture model in float32; the caller seeds torch.

    Args:
        size: its size.
        vocab_size: V.
        special: ids of its special tokens, and whatever else its configuration takes.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    dim = 64 if size.width % 64 == 0 and size.width >= 256 else 32
    heads = max(size.width // dim, 1)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=size.width,
        intermediate_size=max(round(size.width * 8 / 3 / 64), 1) * 64,
        num_hidden_layers=size.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(k for k in range(1, max(heads // 2, 1) + 1) if heads % k == 0),
        head_dim=dim,
        **{"max_position_embeddings": LONGEST, "tie_word_embeddings": True, **special},
    )
    return LlamaForCausalLM(config)
