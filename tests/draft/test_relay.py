"""Look-ups before a draft model: which of the two a row takes, and how both become one draft."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import foretoken
from foretoken.config import Method, default_draft
from foretoken.draft.model import ModelDrafter
from foretoken.draft.relay import Relay, joined
from foretoken.draft.suffix import Suffix
from foretoken.engine import Engine
from foretoken.errors import ConfigError
from foretoken.length.base import LengthPolicy
from foretoken.length.fixed import Fixed
from foretoken.registry import find
from foretoken.request import Request, Sampling
from foretoken.types import Batch, Draft, Drawn, Row
from tests.contract.drawing import DrawingTable
from tests.contract.table import TableModel, near, random_table

TARGET = random_table(81, 4)
REPEATING, FRESH = (0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1), (3, 1, 0, 2)


class Hopeful(Relay):
    """Takes any look-up."""

    guess = 0.0


class Doubtful(Relay):
    """Takes none at first."""

    guess = 1e9


class Resting(Fixed):
    """Never lets the model draft."""

    def rests(self, batch: Batch) -> bool:
        return True


def engine(kind: type[Relay], length: LengthPolicy | None = None) -> Engine:
    chain, rule = find("shape", "chain")(), find("accept", "rejection")()
    relay = kind(Suffix(), ModelDrafter(None, TableModel(near(TARGET, 82))))
    return Engine(TableModel(TARGET), relay, length or Fixed(Fixed.Config(3)), chain, rule)


def start(one: Engine, *prompts: tuple[int, ...], temperature: float = 0.0, most: int = 20) -> Draft:
    one.start([Request(prompt, Sampling(temperature=temperature), most, seed=i) for i, prompt in enumerate(prompts)])
    return one._draft()[0]


@torch.inference_mode()
def test_a_look_up_that_promises_as_much_spares_the_draft() -> None:
    assert start(engine(Hopeful), REPEATING).num_forwards == [0]
    assert start(engine(Doubtful), REPEATING).num_forwards == [3]
    assert start(engine(Hopeful), FRESH[:3]).num_forwards == [3]  # nothing comes again
    # On average three candidates of which the first survives with 0.85 bring 2.3 tokens, and the guess is 1.5.
    assert start(engine(Relay), REPEATING).num_forwards == [0]


@torch.inference_mode()
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_row_decides_for_itself(temperature: float) -> None:
    alone = [start(engine(Hopeful), prompt, temperature=temperature) for prompt in (REPEATING, FRESH[:3])]
    both = start(engine(Hopeful), REPEATING, FRESH[:3], temperature=temperature)
    assert both.num_forwards == [0, 3]
    assert both.sizes == [4, 4]
    assert both.tokens.tolist() == [alone[0].tokens[0].tolist(), both.tokens[1].tolist()]
    assert both.parents.tolist() == [[0, 0, 1, 2]] * 2
    assert both.prob is not None
    assert both.chain
    if not temperature:
        assert (both.q, both.drawn) == (None, Drawn.POINT)
        return
    assert both.q is not None
    assert both.drawn is Drawn.IID
    points = torch.nn.functional.one_hot(both.tokens[0, 1:], 4)
    assert both.q[0].tolist() == [*points.tolist(), [0] * 4]
    assert both.q[1, :3].sum(-1).tolist() == pytest.approx([1, 1, 1])
    assert bool((both.q[1, :3] < 1).all())


def test_chains_of_unlike_length_are_joined() -> None:
    def chain(sizes: list[int], q: bool) -> Draft:
        nodes = max(sizes)
        used = torch.arange(nodes) < torch.tensor(sizes)[:, None]
        law = torch.full((2, nodes, 3), 1 / 3) * used[..., None] if q else None
        drawn = Drawn.IID if q else Drawn.POINT
        forwards = [(size - 1) * q for size in sizes]
        return Draft(2 * used, used.long(), sizes, law, drawn, (used / 2).tolist(), forwards, chain=True)

    for known, model in (([5, 1], [1, 2]), ([2, 1], [1, 4])):
        one = joined(chain(known, False), chain(model, True), [True, False])
        nodes = max(known[0], model[1])
        assert one.sizes == [known[0], model[1]]
        assert [row.count(2) for row in one.tokens.tolist()] == [known[0], model[1]]
        assert one.num_forwards == [0, model[1] - 1]
        assert one.points == [True, False]
        assert one.q is not None
        assert one.q.shape == (2, nodes, 3)
        assert one.q[0].tolist() == [[0, 0, 1]] * (known[0] - 1) + [[0, 0, 0]] * (nodes - known[0] + 1)


@torch.inference_mode()
def test_while_the_model_rests_look_ups_go_on() -> None:
    one = engine(Doubtful, Resting(Fixed.Config(3)))
    assert start(one, REPEATING, FRESH[:3]).sizes == [4, 1]
    while one.batch.rows:
        one.step()


def test_what_a_draft_brought_is_remembered_by_its_row() -> None:
    one = engine(Hopeful)
    first, second = one.start([Request(REPEATING, max_new_tokens=20), Request(FRESH[:3], max_new_tokens=20)])
    one.step()
    assert one.drafter not in first.memory
    assert second.memory[one.drafter] == pytest.approx(0.1 * second.counts.num_accepted)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_draft_model_keeps_up_with_what_was_looked_up(temperature: float) -> None:
    """A model that equals the target is never wrong, whatever was committed without it: its cache holds the text."""
    for model in (TableModel(TARGET), DrawingTable(TARGET)):
        relay = Relay(Suffix(), ModelDrafter(None, model))
        chain, rule = find("shape", "chain")(), find("accept", "rejection")()
        one = Engine(TableModel(TARGET), relay, Fixed(Fixed.Config(3)), chain, rule)
        rows = one.start([Request(p, Sampling(temperature=temperature), 60, seed=3) for p in (REPEATING, FRESH, (2,))])
        sources = set()
        while one.batch.rows:
            before = [counted(row) for row in rows]
            one.step()
            for row, then in zip(rows, before, strict=True):
                drafted, forwards, accepted = map(int.__sub__, counted(row), then)
                sources.add(bool(forwards))
                if forwards and row.finish is None:
                    assert accepted == drafted
        assert sources == {False, True}


def counted(row: Row) -> tuple[int, int, int]:
    return row.counts.num_drafted, row.counts.num_draft_forwards, row.counts.num_accepted


def test_it_is_asked_for_by_name() -> None:
    assert Method.relay("suffix+builtin:pair") == (Method("draft", "suffix"), "builtin:pair")
    assert Method.relay("suffix:4+owner/name") == (Method("draft", "suffix", {"most": "4"}), "owner/name")
    assert Method.relay("some+folder") == (None, "some+folder")
    assert [default_draft(target) for target in ("builtin:pair", "owner/name")] == ["suffix+builtin:pair", "suffix"]


def test_what_cannot_go_together_is_refused() -> None:
    def refused(draft: str) -> Any:
        with pytest.raises(ConfigError) as caught:
            foretoken.load("builtin:pair", draft, weights=False)
        assert caught.value.hint
        return str(caught.value)

    assert "the drafter `none` cannot go before another" in refused("none+builtin:pair")
    assert "`suffix+` goes before a draft model, not before `none`" in refused("suffix+none")


def test_a_loaded_pair_looks_up_first_and_can_do_without() -> None:
    llm = foretoken.load(weights=False)
    assert llm.methods["first"] == Method("draft", "suffix")
    assert llm.methods["draft"].name == "model"
    for other in (llm.alone(), llm.using(draft="none")):
        assert "first" not in other.methods
    assert "first" in llm.using(length="fixed:2").methods


@torch.inference_mode()
def test_a_row_that_rests_takes_any_look_up_also_among_others_that_draft() -> None:
    class One(Fixed):
        """Row 0 rests."""

        def resting(self, row: Row) -> bool:
            return row.id == 0

    both = start(engine(Doubtful, One(Fixed.Config(3))), REPEATING, REPEATING)
    assert both.num_forwards == [0, 3]
