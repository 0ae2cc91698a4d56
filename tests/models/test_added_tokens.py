"""Rows behind a target's input embedding: read like any token, never said, and nothing else changes."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from foretoken.models.base import LanguageModel
from foretoken.models.source import Checkpoint

MISSING = pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra `openvino`")
TEXT, TWINS = [5, 6, 11, 12, 13], [5, 6, 4096, 4097, 13]


def logits(model: LanguageModel, text: list[int]) -> Tensor:
    return model.forward(torch.tensor([text]), model.new_cache(1)).logits


@pytest.mark.parametrize("backend", ["torch", "graphs", pytest.param("openvino", marks=MISSING)])
def test_a_row_is_read_as_the_token_it_is_a_copy_of(backend: str) -> None:
    checkpoint = Checkpoint("builtin:pair", "target")
    plain = checkpoint.load("float32", "cpu", None, "torch")
    table = plain.model.get_input_embeddings().weight  # type: ignore[union-attr]
    more = checkpoint.load("float32", "cpu", None, backend, table[[11, 12]].detach())
    assert more.vocab_size == plain.vocab_size == 4096
    expected = logits(plain, TEXT)
    assert float((logits(more, TEXT) - expected).abs().max()) < 1e-4
    assert float((logits(more, TWINS) - expected).abs().max()) < 1e-4
    assert logits(more, TWINS).shape[-1] == 4096
