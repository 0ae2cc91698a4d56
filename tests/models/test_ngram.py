"""N-gram counts and probabilities, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from foretoken.models.ngram import NGram

A, B, C = 0, 1, 2
TEXTS = [torch.tensor([A, B, A, B, C]), torch.tensor([A, B])]


def prob(model: NGram, *tokens: int) -> float:
    """Probability of the last token after the others."""
    return math.exp(float(model([torch.tensor(token) for token in tokens[:-1]], torch.tensor(tokens[-1]))))


def test_probabilities_by_hand() -> None:
    model = NGram.count(TEXTS, vocab_size=3, order=2)
    # A and B three times each, C once, one more of each of three.
    assert [prob(model, token) for token in (A, B, C)] == pytest.approx([4 / 10, 4 / 10, 2 / 10])
    # After A always B, three times; after B once A and once C. The end of a text is followed by nothing.
    assert prob(model, A, B) == pytest.approx((3 + 1 * 0.4) / (3 + 1))
    assert prob(model, A, C) == pytest.approx((0 + 1 * 0.2) / (3 + 1))
    assert prob(model, B, A) == pytest.approx((1 + 2 * 0.4) / (2 + 2))
    # Nothing was seen after C, so nothing is known but how frequent tokens are.
    assert prob(model, C, A) == pytest.approx(0.4)


def test_longer_contexts_and_what_is_forgotten() -> None:
    seldom = NGram.count(TEXTS, vocab_size=3, order=3, least=2)
    often = NGram.count(TEXTS, vocab_size=3, order=3, least=1)
    assert seldom.sizes[0] == often.sizes[0] == (3, 2)
    assert (seldom.sizes[1], often.sizes[1]) == ((0, 0), (3, 2))
    assert prob(seldom, A, B, C) == pytest.approx(prob(seldom, B, C))
    assert prob(often, A, B, C) == pytest.approx((1 + 2 * prob(often, B, C)) / (2 + 2))
    # A context longer than the order is cut to it.
    assert prob(often, C, A, B, C) == pytest.approx(prob(often, A, B, C))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_every_context_has_a_distribution_and_many_are_looked_up_at_once(order: int) -> None:
    text = torch.randint(7, (300,), generator=torch.Generator().manual_seed(0))
    model = NGram.count([text[:200], text[200:]], vocab_size=7, order=order, least=1)
    tokens = torch.arange(7)
    context = [tokens[:, None, None], tokens[None, :, None]]
    logs = model(context, tokens.expand(7, 7, 7))
    torch.testing.assert_close(logs.exp().sum(-1), torch.ones(7, 7, dtype=torch.float64))
    assert float(logs[3, 4, 5].exp()) == pytest.approx(prob(model, 3, 4, 5))


def test_counts_survive_saving() -> None:
    model = NGram.count(TEXTS, vocab_size=3, order=3, least=1)
    again = NGram(3, model.sizes)
    again.load_state_dict(model.state_dict())
    assert prob(again, A, B, C) == prob(model, A, B, C)
