"""What plain decoding does, written a second time, in plain Python floats, from the documentation alone.

Nothing here may import from the package what it is there to check: only the `Request` and `Sampling` that name the
parameters are shared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from foretoken.request import Request, Sampling

Logits = Callable[[Sequence[int]], list[float]]
Probs = list[float]


def softmax(logits: Sequence[float]) -> Probs:
    """Probabilities of logits."""
    most = max(logits)
    weights = [math.exp(x - most) for x in logits]
    whole = sum(weights)
    return [w / whole for w in weights]


def edit(logits: Sequence[float], sampling: Sampling, prompt: Sequence[int], output: Sequence[int]) -> list[float]:
    """Penalties, bias and processors, given everything said so far."""
    edited = list(logits)
    for token, x in enumerate(edited):
        if token in prompt or token in output:
            x = x / sampling.repetition_penalty if x > 0 else x * sampling.repetition_penalty
        times = list(output).count(token)
        x -= sampling.presence_penalty if times else 0.0
        x -= sampling.frequency_penalty * times
        edited[token] = x + sampling.logit_bias.get(token, 0.0)
    for processor in sampling.processors:
        history = torch.tensor([[*prompt, *output]])
        edited = processor(history, torch.tensor([edited], dtype=torch.float64))[0].tolist()
    return edited


def warp(logits: Sequence[float], sampling: Sampling, temperature: float) -> Probs:
    """Temperature, top-k, top-p and min-p."""
    if temperature == 0:
        best = max(range(len(logits)), key=lambda token: logits[token])
        return [float(token == best) for token in range(len(logits))]
    warm = [x / temperature for x in logits]
    if sampling.top_k:
        least = sorted(warm, reverse=True)[: sampling.top_k][-1]
        warm = [x if x >= least else -math.inf for x in warm]
    probs = softmax(warm)
    if sampling.top_p < 1:
        kept, mass = set(), 0.0
        for token in sorted(range(len(probs)), key=lambda token: -probs[token]):
            if mass < sampling.top_p:
                kept.add(token)
            mass += probs[token]
        probs = [p if token in kept else 0.0 for token, p in enumerate(probs)]
    least = sampling.min_p * max(probs)
    probs = [p if p >= least else 0.0 for p in probs]
    whole = sum(probs)
    return [p / whole for p in probs]


def next_token_law(logits: Logits, request: Request, output: Sequence[int]) -> Probs:
    """What a request asks to sample from, after its prompt and some output."""
    raw = logits([*request.prompt, *output])
    sampling = request.sampling
    return warp(edit(raw, sampling, request.prompt, output), sampling, sampling.temperature)


def exact_law(logits: Logits, request: Request, max_length: int = 48) -> dict[tuple[int, ...], float]:
    """Probability of every output of a request under plain decoding."""
    law: dict[tuple[int, ...], float] = {}

    def follow(output: tuple[int, ...], prob: float) -> None:
        ended = bool(output) and output[-1] in request.stop_token_ids
        full = len(output) == request.max_new_tokens or len(request.prompt) + len(output) == max_length
        if ended or full:
            law[output] = prob
            return
        for token, p in enumerate(next_token_law(logits, request, output)):
            if p > 0:
                follow((*output, token), prob * p)

    follow((), 1.0)
    return law


def greedy_output(logits: Logits, request: Request, max_length: int = 48) -> tuple[int, ...]:
    """The output of a request at temperature 0."""
    (output,) = exact_law(logits, request, max_length)
    return output
