"""How much of what a draft proposes its target would accept, computed from both models' scores of one text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foretoken.sampling import warp


def acceptance(p: Tensor, q: Tensor, temperature: float) -> Tensor:
    """Probability that a token drawn from the draft is accepted, 1 - TV; at temperature 0 whether the two agree.

    Args:
        p: [M, V] float. The target's logits.
        q: [M, V] float. The draft's.
        temperature: of both.

    Returns:
        [M] float32.

    Reference: Leviathan et al. 2023, corollary 3.6, https://arxiv.org/abs/2211.17192
    """
    return torch.minimum(warp(p.float(), temperature), warp(q.float(), temperature)).sum(-1)


@dataclass(frozen=True, slots=True)
class Text:
    """A prompt and what the target said to it.

    Attributes:
        prompt, answer: ids.
        temperature: it was sampled at.
    """

    prompt: list[int]
    answer: list[int]
    temperature: float


def alike(texts: Sequence[Text], count: int) -> list[list[Text]]:
    """Texts in groups of at most `count` and about one length, since what is padded is computed too."""
    order = sorted(texts, key=lambda text: len(text.prompt) + len(text.answer))
    return [order[start : start + count] for start in range(0, len(order), count)]


def padded(texts: Sequence[Text], pad: int = 0) -> tuple[Tensor, Tensor]:
    """Texts in one batch.

    Returns:
        [R, N] int64. Ids, padded on the right.
        [R, N] bool. Positions whose next token belongs to the answer.
    """
    longest = max(len(text.prompt) + len(text.answer) for text in texts)
    ids = torch.full((len(texts), longest), pad)
    scored = torch.zeros(len(texts), longest, dtype=torch.bool)
    for row, text in enumerate(texts):
        begin, end = len(text.prompt), len(text.prompt) + len(text.answer)
        ids[row, :end] = torch.tensor([*text.prompt, *text.answer])
        scored[row, begin - 1 : end - 1] = True
    return ids, scored


def scores(model: Any, ids: Tensor, scored: Tensor) -> Tensor:
    """Logits at the positions asked for.

    Args:
        model: of `transformers`.
        ids: [R, N] int64. Padded on the right.
        scored: [R, N] bool.

    Returns:
        [M, V] float32.
    """
    hidden = model.base_model(input_ids=ids.to(model.device), use_cache=False).last_hidden_state
    logits: Tensor = model.get_output_embeddings()(hidden[scored.to(model.device)])
    return logits.float()


@torch.no_grad()
def agreement(target: Any, draft: Any, texts: Sequence[Text], batch: int = 8) -> dict[float, float]:
    """Mean acceptance by temperature, on texts that the target sampled at that temperature.

    Args:
        target, draft: of `transformers`.
        texts: what the target said.
        batch: texts read at once.
    """
    found: dict[float, list[Tensor]] = {}
    for temperature in sorted({text.temperature for text in texts}):
        some = [text for text in texts if text.temperature == temperature]
        for group in alike(some, batch):
            ids, scored = padded(group)
            p, q = scores(target, ids, scored), scores(draft, ids, scored)
            size = min(p.shape[-1], q.shape[-1])  # either embedding may be padded
            found.setdefault(temperature, []).append(acceptance(p[:, :size], q[:, :size], temperature))
    return {temperature: float(torch.cat(parts).mean()) for temperature, parts in found.items()}
