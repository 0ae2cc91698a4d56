"""Exact whatever the draft model is like: another context length, another vocabulary, another architecture."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foretoken.registry import METHODS, find
from foretoken.request import Request, Sampling
from tests.contract.engine_law import engine_law
from tests.contract.law import exact_law
from tests.contract.llama import TinyLlama, logits_after
from tests.contract.methods import Choice, Setup, choices, setups
from tests.contract.outcomes import distance
from tests.contract.table import TableModel, near, random_table

WITH_MODEL = [choice for choice in choices("draft") if choice.type.uses_model]
FIXED = Choice(find("length", "fixed"))
LOSSLESS = [Choice(find("accept", name)) for name in sorted(METHODS["accept"]) if find("accept", name).lossless]
SETUPS = list(setups(draft=WITH_MODEL, length=[FIXED], accept=LOSSLESS))
TARGET = random_table(21, 3)
DRAFT = near(TARGET, 22)


def off_by(setup: Setup, target: TableModel, draft: TableModel, request: Request) -> float:
    if setup.accept.type.greedy_only:
        request = replace(request, sampling=Sampling())
    law = engine_law(setup, target, draft, request)
    return distance(law, exact_law(target.table, request, target.max_length))


@pytest.mark.parametrize("draft_context", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("setup", SETUPS, ids=str)
def test_a_draft_with_a_smaller_context(setup: Setup, draft_context: int) -> None:
    """The draft runs out of context before the prompt ends, in the middle of a draft, or never (prompt 3, output 3)."""
    request = Request((0, 2, 1), Sampling(temperature=1.0), 3)
    assert off_by(setup, TableModel(TARGET), TableModel(DRAFT, draft_context), request) < 1e-9


@pytest.mark.parametrize("context", [4, 5, 6])
@pytest.mark.parametrize("setup", SETUPS, ids=str)
def test_the_targets_context_ends_mid_draft(setup: Setup, context: int) -> None:
    request = Request((0, 2, 1), Sampling(temperature=1.0), 100)
    assert off_by(setup, TableModel(TARGET, context), TableModel(DRAFT), request) < 1e-9


@pytest.mark.parametrize("draft_vocabulary", [2, 4])
@pytest.mark.parametrize("setup", SETUPS, ids=str)
def test_a_draft_with_another_vocabulary(setup: Setup, draft_vocabulary: int) -> None:
    """Missing tokens are never proposed; surplus ones are cut off, so the law that is drawn from is the cut one."""
    draft = TableModel(random_table(23, draft_vocabulary), vocab_size=TARGET.vocab_size)
    request = Request((0, 2, 1), Sampling(temperature=1.0), 3)
    assert off_by(setup, TableModel(TARGET), draft, request) < 1e-9


@pytest.mark.parametrize("max_nodes", [1, 2, 3])
@pytest.mark.parametrize("setup", SETUPS, ids=str)
def test_a_node_budget(setup: Setup, max_nodes: int) -> None:
    request = Request((0, 2), Sampling(temperature=1.0), 4 if max_nodes < 3 else 3)
    request = replace(request, sampling=Sampling()) if setup.accept.type.greedy_only else request
    law = engine_law(setup, TableModel(TARGET), TableModel(DRAFT), request, max_nodes=max_nodes)
    assert distance(law, exact_law(TARGET, request)) < 1e-9


@pytest.mark.parametrize("draft_vocabulary", [2, 3, 4])
@pytest.mark.parametrize("setup", [s for s in SETUPS if not s.draft.options], ids=str)
def test_transformers_with_vocabularies_of_different_sizes(setup: Setup, draft_vocabulary: int) -> None:
    """The same law through `HFModel`, whose scores are float32; plain reading of the whole text is the reference."""
    target, draft = TinyLlama(3, vocab_size=3), TinyLlama(4, vocab_size=3, own_vocab_size=draft_vocabulary)
    request = Request((0, 2), Sampling() if setup.accept.type.greedy_only else Sampling(temperature=1.0), 3)
    law = engine_law(setup, target, draft, request, rounding=1e-5)
    exact = exact_law(lambda text: logits_after(target, list(text)).tolist(), request)
    assert distance(law, exact) < 1e-5
