"""Look-ahead tokens as a drafter: what they read, what is drafted from them, and that nothing else sees them."""

from __future__ import annotations

import pytest
import torch

from foretoken.costs import GivenCosts
from foretoken.draft.lookahead import Pass
from foretoken.errors import ConfigError
from foretoken.models.lookahead import LookAhead, LookAheadShape
from foretoken.prices import Prices
from foretoken.registry import find
from foretoken.request import Request
from foretoken.types import Draft
from foretoken.verify import verify
from tests.contract.methods import Choice, Setup
from tests.contract.table import TableModel, random_table

TARGET = random_table(33, 4)
AHEAD = 2  # of the look-ahead tokens that the contract's drafters have: tokens 0 and 1


def setup(**options: object) -> Setup:
    fixed, chain, greedy = Choice(find("length", "fixed"), {"k": 2}), find("shape", "chain"), find("accept", "greedy")
    return Setup(Choice(Pass, dict(options)), fixed, Choice(chain), Choice(greedy))


def test_a_draft_is_what_the_target_says_behind_the_look_ahead_tokens() -> None:
    """The first one stands for the root, which was not drawn yet; for a table model they are tokens 0 and 1."""
    engine = setup().engine(TableModel(TARGET), TableModel(TARGET))
    (row,) = engine.start([Request((0, 1, 2), max_new_tokens=40)])
    engine.step()
    assert row.counts.num_drafted == 0  # nothing was read ahead yet
    for _ in range(6):
        text = row.tokens[:-1]
        expected = [max(range(4), key=TARGET([*text, *[0, 1][: j + 1]]).__getitem__) for j in range(AHEAD)]
        draft = engine.drafter.draft(engine.batch, engine.length, engine.shape, 64)
        assert draft.tokens[0, 1:].tolist() == expected
        assert draft.along is not None
        assert draft.along.tokens.tolist() == [[0, 1] * 3]
        assert draft.along.parents.tolist() == [[0, 3, 1, 5, 2, 7]]
        assert draft.num_read == 9
        engine.step()


def test_scores_of_candidates_do_not_depend_on_what_is_read_along() -> None:
    engine = setup().engine(TableModel(TARGET), TableModel(TARGET))
    engine.start([Request((0, 1, 2), max_new_tokens=40)])
    engine.step()
    draft = engine.drafter.draft(engine.batch, engine.length, engine.shape, 64)
    alone = Draft(draft.tokens, draft.parents, draft.sizes, draft.q, draft.drawn, draft.prob, draft.num_forwards)
    found = []
    for one in (draft, alone):
        found.append(verify(engine.target, one, engine.batch).logits[:, : draft.tokens.shape[1]])
        engine.batch.cache.commit([[]])
    assert torch.equal(*found)


def test_look_ahead_tokens_that_stand_beyond_the_context_do_no_harm() -> None:
    """A table model refuses positions beyond its context."""
    engine = setup().engine(TableModel(TARGET, max_length=6), TableModel(TARGET))
    (row,) = engine.start([Request((0, 1), max_new_tokens=40)])
    while engine.batch.rows:
        engine.step()
    assert len(row.tokens) == 6


def test_fewer_than_were_trained() -> None:
    engine = setup(ahead=1).engine(TableModel(TARGET), TableModel(TARGET))
    (row,) = engine.start([Request((0, 1, 2), max_new_tokens=20)])
    engine.step()
    assert engine.drafter.draft(engine.batch, engine.length, engine.shape, 64).tokens.shape == (1, 2)
    while engine.batch.rows:
        engine.step()
    assert row.counts.num_draft_forwards == 0


def test_a_step_costs_what_the_target_reads() -> None:
    drafter = Pass(None, LookAhead(LookAheadShape(4, 9, 3)))
    costs = drafter.priced(GivenCosts(0.2, {1: 1.0, 4: 1.3, 8: 1.7}))
    assert (costs.draft_s(1), costs.verify_s(1), costs.verify_s(2)) == (0.0, 1.3, 1.7)
    # A step that is decoded plainly reads nothing ahead.
    assert [Prices(costs).step_s(drafted) for drafted in (0, 1)] == [1.0, 1.7]


def test_bad_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="ahead cannot be 0"):
        Pass.Config(ahead=0)
    with pytest.raises(ConfigError, match="needs trained embeddings"):
        Pass()
