"""Between the weights before and after a training there is a straight line."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from foretoken.train.interpolation import interpolate
from foretoken.train.sizes import Size, llama


def tiny(seed: int) -> Any:
    """Its two embeddings are one weight."""
    torch.manual_seed(seed)
    return llama(Size(32, 1), 32, tie_word_embeddings=True)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_each_weight_is_on_the_line_between_both(share: float) -> None:
    start, trained = tiny(0), tiny(1)
    after = {name: weight.clone() for name, weight in trained.state_dict().items()}
    interpolate(trained, list(start.parameters()), share)
    ends = {0.0: after, 1.0: start.state_dict()}
    for name, weight in trained.state_dict().items():
        if share in ends:
            assert torch.equal(weight, ends[share][name])
        expected = share * start.state_dict()[name] + (1 - share) * after[name]
        torch.testing.assert_close(weight, expected, rtol=1e-6, atol=1e-7)
    assert all(weight.requires_grad for weight in trained.parameters())


def test_another_model_is_no_start() -> None:
    with pytest.raises(ValueError, match="zip"):
        interpolate(tiny(0), list(tiny(1).parameters())[:-1], 0.5)
