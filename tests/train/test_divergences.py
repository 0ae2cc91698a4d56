"""What is minimised, against closed forms, limits, and the acceptance test itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foretoken.accept.base import residual
from foretoken.errors import ConfigError
from foretoken.train.agreement import acceptance
from foretoken.train.divergences import DIVERGENCES, find_divergence, fkl, jsd, lenient, rkl, tvd


def laws(count: int = 6, size: int = 5) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    p, q = (torch.randn(count, size, generator=rng, dtype=torch.float64) * 2 for _ in range(2))
    return p.log_softmax(-1), q.log_softmax(-1)


def test_by_hand() -> None:
    p, q = torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([[0.2, 0.3, 0.5]]).log()
    assert tvd(p, q).item() == pytest.approx(0.3)
    assert fkl(p, q).item() == rkl(q, p).item() == pytest.approx(0.3 * torch.tensor(2.5).log().item())
    m = torch.tensor([0.35, 0.3, 0.35])
    by_hand = 0.5 * (p.exp() * (p.exp() / m).log()).sum() + 0.5 * (q.exp() * (q.exp() / m).log()).sum()
    assert jsd(p, q).item() == pytest.approx(by_hand.item())


@pytest.mark.parametrize("name", DIVERGENCES)
def test_zero_for_equal_laws_else_positive_and_the_gradient_is_right(name: str) -> None:
    p, q = laws()
    divergence = find_divergence(name, 0.3)
    assert divergence(p, p).abs().max() < 1e-12
    assert bool((divergence(p, q) > 0).all())
    logits = q.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: divergence(p, x.log_softmax(-1)), logits)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_token_that_the_target_never_says_is_no_trouble(name: str) -> None:
    p = torch.tensor([[0.0, -torch.inf]])
    found = find_divergence(name)(p, torch.tensor([[0.5, 0.5]]).log())
    assert not bool(found.isnan().any())


def test_jsd_tends_to_either_kl() -> None:
    p, q = laws()
    torch.testing.assert_close(jsd(p, q, 1e-6) / 1e-6, fkl(p, q), rtol=1e-4, atol=0)
    torch.testing.assert_close(jsd(p, q, 1 - 1e-6) / 1e-6, rkl(p, q), rtol=1e-4, atol=0)


def test_total_variation_is_what_is_rejected() -> None:
    p, q = laws()
    torch.testing.assert_close(1 - tvd(p, q), acceptance(p, q, 1.0).double(), rtol=1e-5, atol=1e-6)
    greedy = acceptance(p, q, 0.0)
    assert greedy.tolist() == (p.argmax(-1) == q.argmax(-1)).float().tolist()
    assert 0 < greedy.mean() < 1


def test_lenience_by_enumeration() -> None:
    """Every draft token, kept or not, and every token drawn after a rejection."""
    p, q = (law.exp() for law in laws())
    for lenience in (1.0, 0.6, 0.1):
        kept = q * (p / (lenience * q)).clamp_max(1)
        left = (p / lenience - q).clamp_min(0)
        emitted = kept + (1 - kept.sum(-1, keepdim=True)) * left / left.sum(-1, keepdim=True)
        rate, distance = lenient(p, q, lenience)
        torch.testing.assert_close(rate, kept.sum(-1))
        torch.testing.assert_close(distance, (emitted - p).abs().sum(-1) / 2)
    exact = lenient(p, q, 1.0)
    assert exact[1].max() < 1e-12
    torch.testing.assert_close(q.minimum(p) + (1 - exact[0])[:, None] * residual(p, q), p)
    assert bool((lenient(p, q, 0.1)[0] >= exact[0]).all())


def test_what_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown divergence"):
        find_divergence("kl")
    with pytest.raises(ConfigError, match="beta cannot be"):
        find_divergence("jsd", 1.0)
