"""Norms that run as one kernel say what they said before, and those that would not are left alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foretoken
from foretoken.models import norms
from foretoken.models.norms import fuse_norms
from foretoken.models.proof import CLOSE
from tests.contract.far import GPU

from .families import FAMILIES, build, config

OWN = {"gemma", "gemma2", "gemma3", "phi", "gpt2", "gpt_bigcode", "gpt_neox", "opt", "falcon", "gptj", "stablelm"}
OWN |= {"nemotron", "starcoder2"}  # they add one to their weights, or subtract the mean


def scattered(name: str, dtype: torch.dtype) -> Any:
    """A model whose norms have weights of their own."""
    model = build(config(FAMILIES[name][0], **FAMILIES[name][1])).to(dtype)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for key, weight in model.named_parameters():
            if "norm" in key and weight.dim() == 1:
                weight.data.add_(torch.randn_like(weight), alpha=0.3)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt_oss", "olmo2", "smollm3", "deepseek_v3", "gemma", "gpt2"])
@torch.no_grad()
def test_models_say_the_same(name: str, dtype: torch.dtype) -> None:
    model = scattered(name, dtype)
    tokens = torch.arange(1, 9)[None]
    before = model(input_ids=tokens).logits.float()
    changed = fuse_norms(model)
    assert (changed == 0) == (name in OWN)
    after = model(input_ids=tokens).logits.float()
    assert (after - before).norm() <= 5 * CLOSE[dtype] * before.norm()


@pytest.mark.parametrize("name", FAMILIES)
def test_which_families_change(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    fused = norms.rms_norm
    monkeypatch.setattr(norms, "rms_norm", lambda *given: used.append(1) or fused(*given))
    model = scattered(name, torch.float32)
    changed = fuse_norms(model)
    used.clear()
    model(input_ids=torch.arange(1, 9)[None])
    assert (changed > 0) == (len(used) > 0) == (name not in OWN)


class Sly(nn.Module):
    """Looks like the others, but is a little off."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.ones(32)), 1e-6

    def forward(self, given: Tensor) -> Tensor:
        return given * (given.pow(2).mean(-1, keepdim=True) + 1e-3).rsqrt()


def test_what_says_something_else_is_left_alone() -> None:
    model = scattered("llama", torch.float32)
    model.model.norm = sly = Sly()
    assert fuse_norms(model) == 4
    assert "forward" not in vars(sly)


@GPU
@pytest.mark.parametrize("backend", ["torch", "graphs"])
def test_on_a_gpu_they_are_fused(backend: str) -> None:
    (model,) = [one for one in foretoken.load("builtin:pair", "none", backend=backend).models if one]
    assert "forward" in vars(model.model.model.norm)  # type: ignore[attr-defined]
