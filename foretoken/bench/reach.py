"""How near a plain decoding step comes to the time that reading the weights takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from foretoken.models.prefill import prefill
from foretoken.models.source import LoadedModel
from foretoken.models.timing import CONTEXT, forwards_s

# Layers, width, width of the feed-forward part, and vocabulary of Llamas to measure.
SHAPES = {"32M": (8, 512, 1792, 4096), "350M": (24, 1024, 2816, 32000)}
HEAD_DIM = 64
BUDGET_S = 1.0
WARM_UP, LEAST = 5, 20  # steps


@dataclass(frozen=True, slots=True)
class Reach:
    """One model's plain step.

    Attributes:
        model: what was measured.
        weight_bytes: what a step reads.
        floor_s: how long that takes at the measured bandwidth.
        step_s: how long a step takes, the median.
        bandwidth_ratio: floor over step; above 1 where caches hold the weights.
        tokens_read: what one token is read as; more than 1 where the processor does that faster.
    """

    model: str
    weight_bytes: int
    floor_s: float
    step_s: float
    bandwidth_ratio: float
    tokens_read: int


def reach(name: str, model: LoadedModel, bandwidth: float) -> Reach:
    """Time steps of one token for about a second.

    Args:
        name: for the result.
        model: what to time.
        bandwidth: bytes per second.
    """
    cache = prefill(model, [[0] * CONTEXT])
    for _ in range(WARM_UP):
        forwards_s(model, 1, cache)
    times: list[float] = []
    deadline = perf_counter() + BUDGET_S
    while len(times) < LEAST or perf_counter() < deadline:
        times.append(forwards_s(model, 1, cache))
    floor, step = model.weight_bytes / bandwidth, median(times)
    return Reach(name, model.weight_bytes, floor, step, floor / step, model.width(1))


def save_random(shape: tuple[int, int, int, int], folder: Path) -> None:
    """Write a Llama of random bfloat16 weights, always the same ones; its embeddings are tied.

    Args:
        shape: as in `SHAPES`.
        folder: where to.
    """
    layers, width, inner, vocab = shape
    config = LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=inner,
        vocab_size=vocab,
        num_attention_heads=width // HEAD_DIM,
        num_key_value_heads=width // HEAD_DIM,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
