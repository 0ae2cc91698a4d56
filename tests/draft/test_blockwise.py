"""Parallel heads as a drafter: which state they read, what they are asked, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foretoken.draft.blockwise import Blockwise
from foretoken.errors import ConfigError
from foretoken.models.block_heads import BlockHeads
from foretoken.request import Request
from foretoken.types import Draft
from tests.contract.methods import Choice, Setup, untrained
from tests.contract.table import DIGESTS, TableModel, random_table

TARGET = random_table(31, 4)


def setup(**options: object) -> Setup:
    from foretoken.registry import find

    return Setup(
        Choice(Blockwise, dict(options)),
        Choice(find("length", "fixed"), {"k": 3}),
        Choice(find("shape", "chain")),
        Choice(find("accept", "greedy")),
    )


def state(text: list[int]) -> Tensor:
    """What a table model's hidden state is after a text: its last token and the digest of it all."""
    digest = sum((at % (DIGESTS - 1) + 1) * token for at, token in enumerate(text)) % DIGESTS
    return torch.tensor([text[-1], digest], dtype=torch.float64)


def heads(text: list[int]) -> list[int]:
    """The greedy block below a text's last token, which the heads themselves do not see."""
    net = untrained(BlockHeads, TableModel(TARGET))
    return [int(net.head(state(text[:-1]), number).argmax()) for number in range(3)]


def test_a_block_begins_at_the_state_that_chose_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first step on, which knows the prompt's state from the prefill, in rows of different lengths."""
    engine = setup(rescore="none").engine(TableModel(TARGET), TableModel(TARGET))
    rows = engine.start([Request((*range(a), a, b), max_new_tokens=24) for a in range(4) for b in range(4)])
    drafts: list[Draft] = []
    make = engine.drafter.draft

    def keep(*args: object) -> Draft:
        drafts.append(make(*args))  # type: ignore[arg-type]
        return drafts[-1]

    monkeypatch.setattr(engine.drafter, "draft", keep)
    longest = 0
    for _ in range(6):
        texts = [list(row.tokens) for row in rows]
        longest = max(longest, *(len(event.tokens) for event in engine.step()))
        for b, text in enumerate(texts):
            assert drafts[-1].tokens[b, 1:].tolist() == heads(text)
            assert drafts[-1].num_forwards[b] == 3
    assert longest > 2, "the state after one accepted token was never told from that after more"


def test_a_prompt_of_one_token_has_no_state_yet() -> None:
    engine = setup().engine(TableModel(TARGET), TableModel(TARGET))
    row, _ = engine.start([Request((2,), max_new_tokens=9), Request((0, 1, 2), max_new_tokens=9)])
    engine.step()
    assert (row.counts.num_drafted, len(row.output)) == (0, 1)
    engine.step()
    assert row.counts.num_drafted == 3


@pytest.mark.parametrize("rescore", ["none", "ngram", "neural"])
def test_what_was_chosen_in_training_is_the_default(rescore: str) -> None:
    chosen = setup(rescore=rescore, top=2, weight=0.7)
    texts = []
    for one in (chosen, setup()):
        engine = one.engine(TableModel(TARGET), TableModel(TARGET))
        net: BlockHeads = engine.drafter._net  # type: ignore[attr-defined]
        object.__setattr__(net.shape, "rescore", rescore)
        (row,) = engine.start([Request((0, 1, 2), max_new_tokens=30)])
        while engine.batch.rows:
            engine.step()
        texts.append((row.output, row.counts))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("bad", [{"rescore": "best"}, {"top": 0}, {"weight": -1.0}])
def test_bad_options_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        Blockwise.Config(**bad)  # type: ignore[arg-type]
    assert caught.value.hint


def test_it_needs_heads() -> None:
    with pytest.raises(ConfigError, match="needs trained heads"):
        Blockwise()
