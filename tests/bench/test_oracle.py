"""The oracle discards nothing and verifies least, so it is the ceiling it is said to be."""

from __future__ import annotations

from dataclasses import replace

import pytest

import foretoken
from foretoken.bench.methods import ORACLE, names, variants
from foretoken.bench.oracle import agree, foreseeable
from foretoken.bench.report import summarise
from foretoken.bench.run import interleave
from foretoken.config import Method
from foretoken.llm import LLM
from foretoken.request import Sampling
from foretoken.tokenizer import Prompt

PROMPTS = ("Write a Python function that returns the factorial of a number.", "Can a fish live on land?")
OTHERS = ["fixed:1", "fixed:4", "fixed:8", "heuristic", "confidence:0.3"]
EDITED = Sampling(repetition_penalty=1.2, presence_penalty=0.5, logit_bias={13: -5.0, 200: 2.0})


@pytest.fixture(scope="module")
def llm() -> LLM:
    return foretoken.load(draft="builtin:pair", dtype="float32")


@pytest.mark.parametrize(
    ("sampling", "accept"),
    [(Sampling(), "block"), (EDITED, "block"), (replace(EDITED, temperature=1.0, top_k=40), "coupled")],
    ids=["plain", "penalties", "coupled"],
)
def test_it_discards_nothing_and_verifies_least(llm: LLM, sampling: Sampling, accept: str) -> None:
    requests = [llm.request(text, sampling, max_new_tokens=32, seed=0) for text in PROMPTS]
    samples = list(interleave(variants(llm.using(accept=accept), [*OTHERS, ORACLE], requests), requests))
    rows = {row["method"]: row for row in summarise(samples)}
    assert not any(row["num_differing"] for row in rows.values())
    assert rows[ORACLE]["num_drafted"] == rows[ORACLE]["num_accepted"] > 0
    for prompt in range(len(PROMPTS)):
        forwards = {s.method: s.counts.num_target_forwards for s in samples if s.prompt == prompt}
        assert forwards[ORACLE] == min(forwards.values())
    assert rows[ORACLE]["below_fixed_line"] > 0


def test_it_ends_with_the_draft_s_context(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    request = llm.request(PROMPTS[0], max_new_tokens=12, seed=0)
    text = llm.generate(PROMPTS[0], max_new_tokens=12).token_ids
    whole = agree(llm, request, text)
    assert len(whole) == len(text)
    monkeypatch.setattr(llm.models[1], "max_length", len(request.prompt) + 5)
    assert agree(llm, request, text) == whole[:5]


def test_chance_cannot_be_foreseen(llm: LLM) -> None:
    assert foreseeable(llm, Sampling())
    assert not foreseeable(llm, Sampling(temperature=0.5))
    assert foreseeable(llm.using(accept="coupled"), Sampling(temperature=0.5))
    warm = foretoken.load(draft="builtin:pair", draft_options={"temperature": "1"}, weights=False)
    assert warm.methods["draft"] == Method("draft", "model", {"temperature": "1"})
    assert not foreseeable(warm, Sampling())


def test_it_keeps_its_place_in_the_list(llm: LLM) -> None:
    prompt: Prompt = "Hi"
    request = llm.request(prompt, max_new_tokens=2, seed=0)
    assert list(variants(llm, names("oracle,fixed:2"), [request])) == ["plain", "oracle", "fixed:2"]
