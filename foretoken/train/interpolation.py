"""Weights between those before a training and those after it.

What a draft unlearns while it is fitted to its target returns sooner than what it learns is lost.

Reference: Wortsman et al. 2022, Robust fine-tuning of zero-shot models (WiSE-FT), https://arxiv.org/abs/2109.01903
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def interpolate(model: nn.Module, start: Sequence[Tensor], share: float) -> None:
    """Move the weights of a model in place, on a straight line back to where they started.

    Args:
        model: as it was trained, in float32.
        start: its weights before that, in the order of `model.parameters()`.
        share: of the start in the result; 0 leaves the model as it is, 1 gives the start, both to the bit.
    """
    for weight, before in zip(model.parameters(), start, strict=True):
        weight.lerp_(before, share)
