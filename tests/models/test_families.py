"""Every supported family gives the library's own logits, however its tokens reach it.

Sequences are longer than the sliding windows, and trees are deep enough to cross them.
"""

import pytest
import torch

from foretoken.models.base import Places
from foretoken.verify import ancestors

from .drive import CLOSE, error, keep, random_tokens, read_chain, vanilla
from .families import FAMILIES, MAX_LENGTH, THROUGH_ATTENTION_MASK, WINDOW, build, config, pair

# A root; three chains below it, two of them branching.
PARENTS = [0, 0, 0, 1, 1, 3, 5, 5, 2, 6]
DEEPEST = [0, 1, 3, 5, 6, 9]

pytestmark = pytest.mark.parametrize("name", FAMILIES)


def path_to(node: int) -> list[int]:
    """Nodes from the root down to this one."""
    return [*path_to(PARENTS[node]), node] if node else [0]


def test_chunks_then_single_tokens(name: str) -> None:
    model, ours = pair(name)
    tokens = random_tokens(1, 18)
    expected, cache, read = vanilla(model, tokens), ours.new_cache(1), 0
    for size in (7, 4, 1, 1, 3, 1, 1):
        found = read_chain(ours, cache, tokens[None, read : read + size])
        keep(cache, size)
        assert error(found[0], expected[read : read + size]) < CLOSE
        read += size


def test_tree_commit_and_rollback(name: str) -> None:
    model, ours = pair(name)
    prompt, tree, more = random_tokens(2, 9), random_tokens(3, len(PARENTS)), random_tokens(4, 6)
    cache = ours.new_cache(1)
    read_chain(ours, cache, prompt[None], last=1)
    keep(cache, len(prompt))

    mask = ancestors(torch.tensor([PARENTS]))
    positions = cache.lengths[:, None] + mask.sum(-1) - 1
    found = ours.forward(tree[None], cache, Places(positions, mask)).logits[0]
    for node in range(len(PARENTS)):
        expected = vanilla(model, torch.cat([prompt, tree[path_to(node)]]))[-1]
        assert error(found[node], expected) < CLOSE, node

    cache.commit([DEEPEST])
    so_far = torch.cat([prompt, tree[DEEPEST]])
    # Two forwards of wrong tokens, one of which is kept; then the right ones.
    read_chain(ours, cache, random_tokens(5, 1, 3))
    read_chain(ours, cache, random_tokens(6, 1, 2))
    keep(cache, 1)
    so_far = torch.cat([so_far, random_tokens(5, 1, 3)[0, :1]])
    found = torch.cat([read_chain(ours, cache, more[None, :4]), read_chain(ours, cache, more[None, 4:])], 1)[0]
    assert error(found, vanilla(model, torch.cat([so_far, more]))[-len(more) :]) < CLOSE


def test_ragged_rows_that_leave_and_join(name: str) -> None:
    model, ours = pair(name)
    texts = [random_tokens(10 + row, length) for row, length in enumerate((3, 11, 6))]
    cache = ours.new_cache(3)
    padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    read_chain(ours, cache, padded, last=1)
    keep(cache, *(len(text) for text in texts))

    def step(new: int, seed: int) -> None:
        tokens = random_tokens(seed, len(texts), new)
        found = read_chain(ours, cache, tokens)
        kept = [1 + (row + seed) % new for row in range(len(texts))]
        for row, text in enumerate(texts):
            expected = vanilla(model, torch.cat([text, tokens[row]]))[-new:]
            assert error(found[row], expected) < CLOSE, row
            texts[row] = torch.cat([text, tokens[row, : kept[row]]])
        keep(cache, *kept)

    step(3, seed=20)
    cache.release([0])  # the last row moves into its place
    texts[0] = texts.pop()
    step(1, seed=21)
    joining, text = ours.new_cache(1), random_tokens(22, 8)
    read_chain(ours, joining, text[None], last=1)
    keep(joining, len(text))
    cache.extend(joining)
    texts.append(text)
    step(4, seed=23)
    step(1, seed=24)


def test_how_the_mask_travels(name: str) -> None:
    assert pair(name)[1].own_attention == (name not in THROUGH_ATTENTION_MASK)


def test_windows_matter(name: str) -> None:
    """Or the tests above would prove nothing about them."""
    model_type, settings = FAMILIES[name]
    if settings.get("sliding_window"):
        tokens = random_tokens(7, 3 * WINDOW)
        unlimited = build(config(model_type, **(settings | {"sliding_window": MAX_LENGTH})))
        assert error(vanilla(unlimited, tokens), vanilla(pair(name)[0], tokens)) > 100 * CLOSE
