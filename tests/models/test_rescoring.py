"""Rescoring of parallel heads, held against all paths one by one."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from foretoken.models.block_heads import BlockHeads, BlockShape
from foretoken.models.ngram import NGram
from foretoken.models.rescoring import Global, Independent, Local

V, H, HEADS, TOP, WEIGHT, ROWS = 6, 4, 3, 3, 0.8, 5


def net(order: int = 3) -> BlockHeads:
    """Random heads and counts, in float64."""
    torch.manual_seed(order)
    text = torch.randint(V, (60,))
    ngram = NGram.count([text], V, order, least=1)
    made = BlockHeads(BlockShape(H, V, HEADS, 5, 4, tuple(ngram.sizes)))
    made.ngram.load_state_dict(ngram.state_dict())
    made.output.copy_(torch.randn(V, H))
    for weights in made.parameters():
        weights.data = torch.randn_like(weights)
    return made.double().requires_grad_(False)


HIDDEN = torch.randn(ROWS, H, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
KNOWN = torch.randint(V, (ROWS, 2), generator=torch.Generator().manual_seed(8))


def greedy(block: Independent, root: Tensor) -> Tensor:
    """[B, HEADS] the most likely token of each place."""
    tokens = [root]
    for _ in range(HEADS):
        tokens.append(block.score(tokens).argmax(-1))
    return torch.stack(tokens[1:], 1)


def candidates(heads: BlockHeads, row: int) -> list[dict[int, float]]:
    """Per place, the head's best tokens with their log-probabilities among each other."""
    found = []
    for number in range(HEADS):
        best = heads.head(HIDDEN[row], number).topk(TOP)
        found.append(dict(zip(best.indices.tolist(), best.values.log_softmax(-1).tolist(), strict=True)))
    return found


def weigh(heads: BlockHeads, row: int, path: tuple[int, ...]) -> float:
    """Weight of a path, from the definition."""
    total, text = 0.0, KNOWN[row].tolist()
    for place, token in zip(candidates(heads, row), path, strict=True):
        names = list(place)
        context = [torch.tensor([t] * len(names)) for t in text]
        said = heads.ngram(context, torch.tensor(names)).log_softmax(-1)
        total += place[token] + WEIGHT * float(said[names.index(token)])
        text.append(token)
    return total


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_best_path_is_viterbis(order: int) -> None:
    heads = net(order)
    chosen = greedy(Global(heads, HIDDEN, TOP, WEIGHT, KNOWN, torch.zeros(ROWS)), KNOWN[:, -1])
    for row in range(ROWS):
        paths = list(product(*candidates(heads, row)))
        assert tuple(chosen[row].tolist()) == max(paths, key=lambda path: weigh(heads, row, path))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_paths_are_drawn_by_their_weights(order: int) -> None:
    """The conditional laws, place after place, multiply to exp(weight / t) over the sum of all paths."""
    heads, warmth = net(order), torch.tensor([0.5, 1.0, 1.0, 2.0, 0.3], dtype=torch.float64)
    block = Global(heads, HIDDEN, TOP, WEIGHT, KNOWN, warmth)
    for row in range(ROWS):
        paths = list(product(*candidates(heads, row)))
        law = torch.tensor([weigh(heads, row, path) for path in paths], dtype=torch.float64).div(warmth[row]).softmax(0)
        for path, expected in zip(paths, law.tolist(), strict=True):
            prob, tokens = 1.0, [KNOWN[:, -1]]
            for token in path:
                scores = block.score(tokens)[row]
                prob *= float((scores / warmth[row]).softmax(-1)[token])
                tokens.append(torch.full((ROWS,), token))
            assert prob == pytest.approx(expected, rel=1e-9)


def test_a_weight_of_nothing_leaves_the_heads_as_they_are() -> None:
    heads = net()
    plain = greedy(Independent(heads, HIDDEN), KNOWN[:, -1])
    assert torch.equal(greedy(Local(heads, HIDDEN, TOP, 0.0), KNOWN[:, -1]), plain)
    assert torch.equal(greedy(Global(heads, HIDDEN, TOP, 0.0, KNOWN, torch.zeros(ROWS)), KNOWN[:, -1]), plain)
    assert torch.equal(greedy(Local(heads, HIDDEN, 1, 9.0), KNOWN[:, -1]), plain)


def test_the_small_network_reads_what_was_chosen() -> None:
    heads = net()
    block, memory = Local(heads, HIDDEN, TOP, WEIGHT), heads.remember(HIDDEN)
    tokens = [KNOWN[:, -1]]
    for number in range(HEADS):
        scores = block.score(tokens)
        memory = heads.read(memory, tokens[-1])
        for row in range(ROWS):
            names = list(candidates(heads, row)[number])
            own = torch.tensor(list(candidates(heads, row)[number].values()), dtype=torch.float64)
            expected = own + WEIGHT * heads.expect(memory)[row][names].log_softmax(-1)
            torch.testing.assert_close(scores[row][names], expected)
            assert int(scores[row].isfinite().sum()) == TOP
        tokens.append(scores.argmax(-1))
