"""A semi-autoregressive head as a drafter: that it drafts as it was trained, what it keeps, and what it costs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foretoken.costs import GivenCosts
from foretoken.draft.falcon import Falcon
from foretoken.errors import ConfigError
from foretoken.models.falcon import FalconHead, FalconShape
from foretoken.prices import Prices
from foretoken.registry import find
from foretoken.request import Request
from foretoken.train.glancing import Blocks
from foretoken.types import Draft
from tests.contract.methods import Choice, Setup, untrained
from tests.contract.table import DIGESTS, TableModel, random_table

TARGET = random_table(31, 4)


def setup(k: int = 4) -> Setup:
    fixed, chain, greedy = Choice(find("length", "fixed"), {"k": k}), find("shape", "chain"), find("accept", "greedy")
    return Setup(Choice(Falcon), fixed, Choice(chain), Choice(greedy))


def state(text: list[int]) -> Tensor:
    """What a table model's hidden state is after a text: its last token and the digest of it all."""
    digest = sum((at % (DIGESTS - 1) + 1) * token for at, token in enumerate(text)) % DIGESTS
    return torch.tensor([text[-1], digest], dtype=torch.float64)


def trained_to_say(text: list[int]) -> list[int]:
    """The greedy draft of four tokens below a text's last token, as the training computes it."""
    net = untrained(FalconHead, TableModel(TARGET))
    hidden = torch.stack([state(text[: at + 1]) for at in range(len(text))])[None]
    blocks = Blocks(net, hidden, torch.tensor([text]), torch.tensor([len(text) - 3]), 1)
    first = blocks.first()
    tokens = net.logits(first.states).argmax(-1)
    second = net.logits(blocks.second(first.states, tokens).states).argmax(-1)
    return [*tokens[0].tolist(), *second[0].tolist()]


def test_it_drafts_as_it_was_trained_after_any_number_of_accepted_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """In rows of different lengths, from the first step on, also where rows join and leave."""
    engine = setup().engine(TableModel(TARGET), TableModel(TARGET))
    rows = engine.start([Request((*range(a), a, b, 1), max_new_tokens=9 + 7 * a) for a in range(3) for b in range(4)])
    drafts: list[Draft] = []
    make = engine.drafter.draft
    monkeypatch.setattr(engine.drafter, "draft", lambda *given: drafts.append(make(*given)) or drafts[-1])
    gained = set()
    for step in range(12):
        if step == 5:
            engine.start([Request((2, 3, 1, 0, 0, 1), max_new_tokens=20)])
        rows = list(engine.batch.rows)
        texts = [list(row.tokens) for row in rows]
        gained |= {len(event.tokens) for event in engine.step()}
        for b, (row, text) in enumerate(zip(rows, texts, strict=True)):
            most = min(4, row.capacity - len(text) - 1)
            assert drafts[-1].tokens[b, 1 : 1 + most].tolist() == trained_to_say(text)[:most]
            assert drafts[-1].num_forwards[b] == -(-most // 2)
    assert gained >= {1, 2, 3}, "what is kept after so many tokens was never seen"


def test_a_prompt_shorter_than_a_block_is_drafted_for_as_soon_as_a_block_is_known() -> None:
    engine = setup().engine(TableModel(TARGET), TableModel(TARGET))
    row, _ = engine.start([Request((2,), max_new_tokens=9), Request((0, 1, 2), max_new_tokens=9)])
    engine.step()
    engine.step()
    assert (row.counts.num_drafted, len(row.output)) == (0, 2)
    text = list(row.tokens)
    with torch.inference_mode():
        draft = engine.drafter.draft(engine.batch, engine.length, engine.shape, 64)
    assert draft.tokens[0, 1:].tolist() == trained_to_say(text)


def test_steps_without_a_draft_are_caught_up_with() -> None:
    engine = setup().engine(TableModel(TARGET), TableModel(TARGET))
    (row,) = engine.start([Request((0, 1, 2), max_new_tokens=30)])
    drafting, resting = engine.length, setup(0).engine(TableModel(TARGET), TableModel(TARGET)).length
    for length in (drafting, resting, resting, resting, drafting):
        engine.length = length
        engine.step()
    text = list(row.tokens)
    with torch.inference_mode():
        draft = engine.drafter.draft(engine.batch, drafting, engine.shape, 64)
    assert draft.tokens[0, 1:].tolist() == trained_to_say(text)


def test_a_step_costs_a_forward_per_block() -> None:
    drafter = Falcon(None, FalconHead(FalconShape(4, 9, block=3, width=4)))
    costs = drafter.priced(GivenCosts(0.25))
    assert [Prices(costs).step_s(drafted) for drafted in (0, 1, 3, 4, 7)] == [1.0, 1.25, 1.25, 1.5, 1.75]
    assert [drafter.forwards(depth) for depth in range(1, 8)] == [1, 0, 0, 1, 0, 0, 1]
    alone = Falcon(None, FalconHead(FalconShape(4, 9, block=1, width=4)))
    assert [alone.forwards(depth) for depth in (1, 2, 3)] == [1, 1, 1]


def test_it_needs_a_head() -> None:
    with pytest.raises(ConfigError, match="needs a trained head"):
        Falcon()
