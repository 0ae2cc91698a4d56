"""Cache truth: after every step the caches hold exactly the committed tokens, each once and at its own position.

The root, the last token, is never in a cache yet. Of a table model's cache we can say what must be in it without
asking any model: keys are token ids, values are positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from foretoken.accept.greedy import Greedy
from foretoken.commit import commit
from foretoken.costs import GivenCosts
from foretoken.engine import Engine
from foretoken.models.base import LanguageModel
from foretoken.models.cache import TensorCache
from foretoken.models.prefill import prefill
from foretoken.registry import find
from foretoken.request import Request, Sampling
from foretoken.rng import SeededRng
from foretoken.sampling import distribution
from foretoken.tokenizer import TextPieces
from foretoken.types import Batch, Draft, Drawn, Row, Verdict
from foretoken.verify import Paths, ancestors, verify
from tests.contract.llama import TinyLlama, logits_after
from tests.contract.methods import Choice, Setup, pairwise
from tests.contract.table import TableModel, near, random_table

TARGET = random_table(51, 4)
DRAFT = near(TARGET, 52)


def requests(setup: Setup) -> list[Request]:
    warm = Sampling() if setup.accept.type.greedy_only else Sampling(temperature=1.0)
    prompts = [(0, 1, 2, 3), (2,), (3, 3, 0, 1, 2, 0, 1), (1, 0), (2, 2)]
    return [Request(prompt, warm, 5 + 3 * i, seed=i) for i, prompt in enumerate(prompts)]


def steps(engine: Engine, asked: list[Request]) -> Iterator[dict[int, tuple[int, int]]]:
    """Run requests, two of them joining late; after every step, (drafted by a model, accepted of it) by row id."""
    waiting = [asked[:3], asked[3:4], asked[4:]]
    while waiting or engine.batch.rows:
        if waiting:
            engine.start(waiting.pop(0))
        before = [(row, replace(row.counts)) for row in engine.batch.rows]
        engine.step()
        yield {
            row.id: (row.counts.num_drafted - old.num_drafted, row.counts.num_accepted - old.num_accepted)
            if row.counts.num_draft_forwards > old.num_draft_forwards
            else (0, 0)
            for row, old in before
        }


def held(cache: TensorCache, row: int) -> tuple[list[int], list[int]]:
    """Tokens and positions of one row's committed entries in a table model's cache."""
    if not int(cache.lengths[row]):
        return [], []
    keys, values = cache.entries(0, row)
    return keys[0, :, 0].int().tolist(), values[0, :, 0].int().tolist()


@pytest.mark.parametrize("setup", pairwise(), ids=str)
def test_the_targets_cache_holds_what_was_committed(setup: Setup) -> None:
    engine = setup.engine(TableModel(TARGET), TableModel(DRAFT))
    for _ in steps(engine, requests(setup)):
        assert len(engine.batch.cache.lengths) == len(engine.batch.rows)
        assert engine.batch.cache.pending == 0
        for b, row in enumerate(engine.batch.rows):
            length = len(row.tokens) - 1
            assert held(engine.batch.cache, b) == (row.tokens[:length], list(range(length)))


@pytest.mark.parametrize("setup", [one for one in pairwise() if one.draft.type.uses_model], ids=str)
def test_the_drafts_cache_holds_what_it_has_read(setup: Setup) -> None:
    draft = TableModel(DRAFT)
    engine = setup.engine(TableModel(TARGET), draft)
    for gained in steps(engine, requests(setup)):
        for b, row in enumerate(engine.batch.rows):
            check_draft_cache(draft.caches[0], b, row, *gained[row.id])


def check_draft_cache(cache: TensorCache, b: int, row: Row, drafted: int, accepted: int) -> None:
    """The drafter has read the text up to its root; but the last drafted token it never read, accepted or not."""
    if b >= len(cache.lengths):
        assert not drafted, "something was drafted without a look at the text"
        return
    length = int(cache.lengths[b])
    assert cache.pending == 0
    assert held(cache, b) == (row.tokens[:length], list(range(length)))
    behind = len(row.tokens) - 1 - length
    assert behind >= 0
    if drafted:
        assert behind <= (accepted == drafted), "something was thrown away that has to be read again"


def assert_same_as_prefill(model: LanguageModel, cache: TensorCache, row: int, tokens: list[int]) -> None:
    fresh = prefill(model, [tokens])
    assert int(cache.lengths[row]) == len(tokens)
    for layer in range(2 if tokens else 0):
        for found, expected in zip(cache.entries(layer, row), fresh.entries(layer, 0), strict=True):
            assert found.shape == expected.shape
            assert (found - expected).abs().max() < 1e-5


@pytest.mark.parametrize("setup", pairwise(length=(Choice(find("length", "fixed")),)), ids=str)
def test_the_caches_of_a_transformer_equal_a_fresh_prefill(setup: Setup) -> None:
    """The draft has the target's weights, so most drafts are kept whole; at another temperature, some are not."""
    target, draft = TinyLlama(1), TinyLlama(1)
    engine = setup.engine(target, draft)
    for _ in steps(engine, requests(setup)):
        for b, row in enumerate(engine.batch.rows):
            assert_same_as_prefill(target, engine.batch.cache, b, row.tokens[:-1])
            if setup.draft.type.uses_model and b < len((cache := draft.caches[0]).lengths):
                assert_same_as_prefill(draft, cache, b, row.tokens[: int(cache.lengths[b])])


# Three rows with trees of their own, and the node at the end of each accepted path. Node 0 is the root.
TREES = [
    ([2, 1, 3, 0, 2, 1, 1], [0, 0, 0, 1, 1, 2, 4], 6),
    ([1, 0, 3, 2, 3], [0, 0, 0, 2, 3], 4),
    ([0, 2, 1], [0, 0, 0], 0),
]
PROMPTS = [[3, 0, 1, 2], [1], [2, 0, 0, 3, 1, 3, 0]]


def tree_batch(model: LanguageModel) -> tuple[Batch, Draft, Verdict]:
    """Ragged rows with a branching draft each, whose paths were judged by hand."""
    widest = max(len(tokens) for tokens, _, _ in TREES)
    tokens = torch.tensor([tokens + [0] * (widest - len(tokens)) for tokens, _, _ in TREES])
    parents = torch.tensor([parents + [0] * (widest - len(parents)) for _, parents, _ in TREES])
    sizes = [len(tokens) for tokens, _, _ in TREES]
    draft = Draft(tokens, parents, sizes, None, Drawn.POINT, None, [0] * 3)
    paths = [path_to(leaf, parents) for _, parents, leaf in TREES]
    verdict = Verdict(paths, list(map(len, paths)), [1, 1, 1], [True] * 3)
    rows = [
        Row(i, Request(tuple(prompt)), TextPieces(lambda ids: ""), 48, [*prompt, int(tokens[i, 0])])
        for i, prompt in enumerate(PROMPTS)
    ]
    cache = prefill(model, PROMPTS)
    return (
        Batch(rows, cache, SeededRng(rows, "draft"), SeededRng(rows, "accept"), model.device, GivenCosts(0.1)),
        draft,
        verdict,
    )


def path_to(node: int, parents: list[int]) -> list[int]:
    return [*path_to(parents[node], parents), node] if node else []


@pytest.fixture(params=["table", "llama"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    return TableModel(TARGET) if request.param == "table" else TinyLlama(2)


def test_every_node_of_a_tree_is_scored_as_if_it_were_alone(model: LanguageModel) -> None:
    batch, draft, _ = tree_batch(model)
    scores = verify(model, draft, batch)
    for b, (tokens, parents, _) in enumerate(TREES):
        for node in range(len(tokens)):
            text = [*PROMPTS[b], tokens[0], *(tokens[n] for n in path_to(node, parents))]
            assert (scores.logits[b, node] - logits_after(model, text)).abs().max() < 1e-5


def test_committing_a_branch_leaves_the_cache_of_its_text(model: LanguageModel) -> None:
    batch, draft, verdict = tree_batch(model)
    verify(model, draft, batch)
    commit(batch, draft, verdict)
    for b, (tokens, parents, leaf) in enumerate(TREES):
        text = [*PROMPTS[b], tokens[0], *(tokens[n] for n in path_to(leaf, parents))]
        assert batch.rows[b].tokens == [*text, 1]
        if isinstance(model, TableModel):
            assert held(batch.cache, b) == (text, list(range(len(text))))
        else:
            assert_same_as_prefill(model, batch.cache, b, text)


def test_a_tree_after_a_tree(model: LanguageModel) -> None:
    """The second verification reads the compacted cache of the first; a row was released in between."""
    batch, draft, verdict = tree_batch(model)
    verify(model, draft, batch)
    commit(batch, draft, verdict)
    batch.cache.release([0])
    batch.rows[:] = [batch.rows[2], batch.rows[1]]
    roots = batch.roots
    again = Draft(
        torch.cat([roots[:, None], torch.tensor([[2, 0, 3], [0, 1, 1]])], 1),
        torch.tensor([[0, 0, 0, 2], [0, 0, 1, 1]]),
        [4, 4],
        None,
        Drawn.POINT,
        None,
        [0, 0],
    )
    scores = verify(model, again, batch)
    for b, row in enumerate(batch.rows):
        for node in range(4):
            text = row.tokens + [int(again.tokens[b, n]) for n in path_to(node, again.parents[b].tolist())]
            assert (scores.logits[b, node] - logits_after(model, text)).abs().max() < 1e-5


def test_ancestors_of_a_hand_drawn_tree() -> None:
    """Every node sees itself, its parent, and so on up to the root, and no cousin."""
    parents = TREES[0][1]
    seen = ancestors(torch.tensor([parents]))[0]
    for node in range(len(parents)):
        assert seen[node].nonzero().flatten().tolist() == [0, *path_to(node, parents)]


def test_the_greedy_walk_of_a_tree_ends_where_the_target_says() -> None:
    """Scores, walk and commit together: the accepted branch is the target's own continuation."""
    model = TableModel(TARGET)
    batch, draft, _ = tree_batch(model)
    p = distribution(verify(model, draft, batch).logits, batch.rows, Paths(draft))
    verdict = Greedy().accept(draft, p, batch.accept_rng)
    before = [list(row.tokens) for row in batch.rows]
    commit(batch, draft, verdict)
    for text, row in zip(before, batch.rows, strict=True):
        for token in row.tokens[len(text) :]:
            scores = TARGET(text)
            assert token == scores.index(max(scores))
            text.append(token)
