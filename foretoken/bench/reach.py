"""How near a plain decoding step comes to the time that reading the weights takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from foretoken.bench.machine import Bandwidth
from foretoken.models.prefill import prefill
from foretoken.models.source import LoadedModel
from foretoken.models.timing import CONTEXT, forwards_s

# Layers, width, width of the feed-forward part, and vocabulary of Llamas to measure.
SHAPES = {"32M": (8, 512, 1792, 4096), "350M": (24, 1024, 2816, 32000)}
HEAD_DIM = 64
BUDGET_S = 2.0
ROUNDS = 5  # at least, in each of which memory is read and then
IN_A_ROW, LAST = 12, 8  # so many steps are made; the last of them count


@dataclass(frozen=True, slots=True)
class Reach:
    """One model's plain step.

    Attributes:
        model: what was measured.
        weight_bytes: what a step reads.
        bandwidth_bytes_per_s: how fast memory was read between these steps, the median.
        floor_s: how long reading the weights takes at that.
        step_s: how long a step takes, the median.
        bandwidth_ratio: floor over step; above 1 where caches hold the weights.
        tokens_read: what one token is read as; more than 1 where the processor does that faster.
    """

    model: str
    weight_bytes: int
    bandwidth_bytes_per_s: float
    floor_s: float
    step_s: float
    bandwidth_ratio: float
    tokens_read: int


def reach(name: str, model: LoadedModel, bandwidth: Bandwidth) -> Reach:
    """Time steps of one token and the reading of memory in turn, for about two seconds.

    In turn, since a machine's neighbours take a share of its bandwidth that differs from one second to the next.

    Args:
        name: for the result.
        model: what to time.
        bandwidth: of the memory it is in.
    """
    cache = prefill(model, [[0] * CONTEXT])
    reads: list[float] = []
    times: list[float] = []
    deadline = perf_counter() + BUDGET_S
    while len(reads) < ROUNDS or perf_counter() < deadline:
        reads.append(bandwidth.measure())
        times += [forwards_s(model, 1, cache) for _ in range(IN_A_ROW)][-LAST:]
    read, step = median(reads), median(times)
    floor = model.weight_bytes / read
    return Reach(name, model.weight_bytes, read, floor, step, floor / step, model.width(1))


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
