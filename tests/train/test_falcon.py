"""Training a semi-autoregressive head: what pairs of a block see, what they learn, and glancing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import foretoken
from foretoken.errors import ConfigError
from foretoken.models.falcon import FalconHead, FalconShape
from foretoken.train import falcon
from foretoken.train.agreement import Text, padded
from foretoken.train.glancing import Blocks, Said, along_answers, at_places, glanced
from foretoken.train.inside import read, target_of
from foretoken.types import Scores

SIZES = {"hidden_size": 4, "vocab_size": 7, "width": 8}
ROWS, LENGTH = 2, 11


def head(block: int) -> FalconHead:
    torch.manual_seed(0)
    net = FalconHead(FalconShape(block=block, **SIZES)).double().requires_grad_(False)
    for weights in (*net.parameters(), net.output):
        weights.copy_(0.3 * torch.randn_like(weights))  # no attention is so sharp that a pair goes unseen
    return net


def texts() -> tuple[Tensor, Tensor]:
    """States and ids of two texts."""
    dice = torch.Generator().manual_seed(1)
    states = torch.randn(ROWS, LENGTH, SIZES["hidden_size"], generator=dice, dtype=torch.float64)
    return states, torch.randint(SIZES["vocab_size"], (ROWS, LENGTH), generator=dice)


def blocks_of(net: FalconHead, states: Tensor, ids: Tensor) -> Blocks:
    """Blocks that begin at all places of two texts, the last one at the last place where a whole one can."""
    return Blocks(net, states, ids, torch.zeros(ROWS, dtype=torch.int64), LENGTH - net.shape.block)


# What sees what ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize("changed", range(LENGTH - 1))
def test_a_pair_sees_its_own_block_and_those_before(block: int, changed: int) -> None:
    """Change one pair: what is said by blocks that end before it stays, what others say does not."""
    net, (states, ids) = head(block), texts()
    begins = torch.arange(LENGTH - block)
    before = blocks_of(net, states, ids).first()
    assert before.at[0].tolist() == [begin + place + block for begin in begins.tolist() for place in range(block)]
    ids[:, changed + 1] = (ids[:, changed + 1] + 1) % SIZES["vocab_size"]  # the token chosen at that place
    after = blocks_of(net, states, ids).first()
    moved = (before.states != after.states).any(-1).unflatten(1, (-1, block))
    assert torch.equal(moved, (begins + block > changed)[:, None].expand(ROWS, -1, block))


@pytest.mark.parametrize("block", [1, 2, 3])
def test_a_drafted_block_sees_itself_and_all_that_was_known(block: int) -> None:
    net, (states, ids) = head(block), texts()
    begins = torch.arange(LENGTH - block)
    blocks = blocks_of(net, states, ids)
    first = blocks.first()
    tokens = net.logits(first.states).argmax(-1)
    before = blocks.second(first.states, tokens)
    assert torch.equal(before.at, first.at + block)

    def moved(after: Said) -> Tensor:
        return (before.states != after.states).any(-1).unflatten(1, (-1, block))

    for changed in range(LENGTH - 1):
        other = tokens.clone()
        other[:, changed] = (tokens[:, changed] + 1) % SIZES["vocab_size"]
        own = begins == changed // block
        assert torch.equal(moved(blocks.second(first.states, other)), own[:, None].expand(ROWS, -1, block))
        # What the target has read after the block ended is not known in it.
        later = ids.clone()
        later[:, changed + 1] = (ids[:, changed + 1] + 1) % SIZES["vocab_size"]
        knows = begins + block > changed
        after = blocks_of(net, states, later).second(first.states, tokens)
        assert torch.equal(moved(after), knows[:, None].expand(ROWS, -1, block))


# What is learnt ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_pairs_learn_the_states_and_laws_of_places_ahead(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is least when both blocks say what the target says k and 2k places after the pairs that started them."""
    llm = foretoken.load(draft="none", length="fixed", dtype="float32", backend="torch")
    target, recipe = target_of(llm), falcon.Recipe(width=8)
    told = [Text([5, 6, 7], [11, 12, 13, 14], 0.0), Text([9], [8, 7, 6, 5, 4, 3], 0.0)]
    net, (ids, scored) = falcon.fresh(target, told, recipe, "mine").requires_grad_(False), padded(told)
    scores = read(target, ids)
    assert scores.hidden is not None
    known = torch.cat([scores.hidden.float(), scores.hidden[:, :1].float().expand(-1, 9, -1)], 1)

    class Knowing(Blocks):
        shift = 0

        def first(self) -> Said:
            said = super().first()
            return Said(at_places(known, said.at + self.shift), said.at)

        def second(self, states: Tensor, tokens: Tensor) -> Said:
            said = super().second(states, tokens)
            return Said(at_places(known, said.at + self.shift), said.at)

    monkeypatch.setattr(falcon, "Blocks", Knowing)
    found = []
    for Knowing.shift in (0, 1, -1):
        found.append([falcon.loss(net, scores, ids, scored, share, f).item() for f in (0.0, 1.0)])
    assert found[0][0] < min(found[1][0], found[2][0])
    assert found[0][1] == pytest.approx(found[0][0])  # states are the target's own
    assert found[1][1] > found[1][0] + 0.1


def test_blocks_speak_of_answers() -> None:
    scored = torch.zeros(3, 9, dtype=torch.bool)
    scored[0, 3:8] = scored[1, 5:7] = scored[2, 1:3] = True
    begin, count = along_answers(scored, 2)
    assert (begin.tolist(), count) == ([1, 3, 0], 5)


# Glancing ------------------------------------------------------------------------------------------------------------


def drafted() -> tuple[Said, Tensor, Tensor, Tensor, Tensor]:
    """A draft of two texts in blocks of two: its states and tokens, the target's, and places that count."""
    states, ids = texts()
    at = torch.arange(2, LENGTH + 1).expand(ROWS, -1)  # the last two are beyond the texts
    tokens = at_places(ids, at + 1)
    tokens[0, ::2] += 1
    tokens[1, 5:7] += 1
    scored = torch.ones(ROWS, LENGTH, dtype=torch.bool)
    scored[:, :3] = False
    scored[:, -1] = False
    return Said(torch.zeros(ROWS, at.shape[1], states.shape[-1], dtype=torch.float64), at), tokens, states, ids, scored


def test_without_glancing_a_draft_is_read_as_it_is() -> None:
    said, tokens, states, ids, scored = drafted()
    read_states, read_tokens = glanced(said, tokens, states, ids, scored, 0.0)
    assert torch.equal(read_states, said.states)
    assert torch.equal(read_tokens, tokens)


def test_with_a_share_of_one_all_that_is_wrong_is_put_right() -> None:
    said, tokens, states, ids, scored = drafted()
    read_states, read_tokens = glanced(said, tokens, states, ids, scored, 1.0)
    for row in range(ROWS):
        for place, at in enumerate(said.at[0].tolist()):
            counts = at < LENGTH - 1 and bool(scored[row, at])
            wrong = counts and int(tokens[row, place]) != int(ids[row, at + 1])
            assert int(read_tokens[row, place]) == int(ids[row, at + 1] if wrong else tokens[row, place])
            assert torch.equal(read_states[row, place], states[row, at] if wrong else said.states[row, place])


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_the_worse_a_draft_the_more_of_it_is_put_right(share: float) -> None:
    said, tokens, states, ids, scored = drafted()
    every = glanced(said, tokens, states, ids, scored, 1.0)[1] != tokens
    seen = torch.zeros_like(every)
    for seed in range(20):
        torch.manual_seed(seed)
        some = glanced(said, tokens, states, ids, scored, share)[1] != tokens
        assert not bool((some & ~every).any())
        assert some.sum(1).tolist() == [round(share * n) for n in every.sum(1).tolist()]
        seen |= some
    assert seen.sum() > 2, "always the same places"


def test_the_share_falls_with_the_training(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """From the first share, by the same amount with every step."""
    from tests.train.test_inside import SMALL, SOURCES

    shares: list[float] = []
    whole = falcon.loss

    def keep(net: FalconHead, scores: Scores, ids: Tensor, scored: Tensor, share: float, *rest: float) -> Tensor:
        shares.append(share)
        return whole(net, scores, ids, scored, share, *rest)

    monkeypatch.setattr(falcon, "loss", keep)
    llm = foretoken.load(draft="none", length="fixed", dtype="float32", backend="torch")
    recipe = falcon.Recipe(**SMALL, width=8, glance=0.5, glance_last=0.1)  # type: ignore[arg-type]
    falcon.train(llm, SOURCES, [], recipe, tmp_path)  # type: ignore[arg-type]
    assert shares == pytest.approx([0.5, 0.4, 0.3, 0.2])


@pytest.mark.parametrize("bad", [{"block": 0}, {"width": 100}, {"width": 5}, {"glance": 1.5}, {"feature": -1.0}])
def test_what_is_no_recipe_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(falcon.Recipe(), **bad)  # type: ignore[arg-type]
    assert caught.value.hint
