"""The engine over a real architecture: rows come and go, and each says what it would say alone."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest

from foretoken.accept.base import AcceptanceRule
from foretoken.accept.block import Block
from foretoken.accept.greedy import Greedy
from foretoken.accept.rejection import Rejection
from foretoken.costs import GivenCosts
from foretoken.draft.base import Drafter
from foretoken.draft.model import ModelDrafter
from foretoken.draft.none import NoDraft
from foretoken.engine import Engine, check_fit
from foretoken.errors import ConfigError, ForetokenError, GenerationError, RequestError
from foretoken.length.base import LengthPolicy
from foretoken.length.confidence import Confidence
from foretoken.length.fixed import Fixed
from foretoken.models.hf import HFModel
from foretoken.request import Request, Sampling
from foretoken.shape.base import TreeShape
from foretoken.shape.chain import Chain
from foretoken.types import Batch, Draft, Drawn, FinishReason, Origin, Row, Scores, TokenEvent, Verdict
from tests.contract.adversaries import Twins
from tests.contract.llama import TinyLlama

LETTERS = "abcdefghij."


TARGET, DRAFT = TinyLlama(1), TinyLlama(2)
PENALISED = Sampling(temperature=1.0, min_p=0.05, repetition_penalty=1.2, presence_penalty=0.5)
MIXED = [
    Request((1, 2, 3), max_new_tokens=20, seed=1),
    Request((4, 5), Sampling(temperature=0.7, top_p=0.9), 15, seed=2),
    Request((6, 7, 8, 9, 0), PENALISED, 25, seed=3),
    Request((1, 2, 3), Sampling(temperature=1.5, frequency_penalty=0.3), 9, seed=4),
]


def decode(ids: list[int]) -> str:
    return "".join(LETTERS[i] for i in ids)


def engine(k: int = 3, rule: type[AcceptanceRule] = Rejection, draft: HFModel = DRAFT) -> Engine:
    return Engine(TARGET, ModelDrafter(None, draft), Fixed(Fixed.Config(k)), Chain(), rule(), decode=decode)


def plain() -> Engine:
    return Engine(TARGET, NoDraft(), Fixed(), Chain(), Rejection(), decode=decode)


def finish(one: Engine) -> list[TokenEvent]:
    """Run until every row has ended."""
    events = []
    while one.batch.rows:
        events += one.step()
    return events


def text(events: list[TokenEvent], row: Row) -> str:
    return "".join(event.text for event in events if event.id == row.id)


def alone(request: Request, one: Engine) -> tuple[list[int], str, FinishReason | None]:
    (row,) = one.start([request])
    events = finish(one)
    return row.output, text(events, row), row.finish


# Rows come and go ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [Rejection, Block])
def test_rows_that_join_and_leave_say_what_they_say_alone(rule: type[AcceptanceRule]) -> None:
    one = engine(rule=rule)
    rows, events = one.start(MIXED[:2]), one.step()
    rows += one.start(MIXED[2:3])
    for _ in range(3):
        events += one.step()
    rows += one.start(MIXED[3:])
    events += finish(one)
    for row in rows:
        assert (row.output, text(events, row), row.finish) == alone(row.request, engine(rule=rule))
        assert text(events, row) == decode(row.output)
    assert one.step() == []
    assert len(one.batch.cache.lengths) == 0


class Idle(Fixed):
    """Rests, and needs to be asked about every fourth step only."""

    def __init__(self) -> None:
        super().__init__(Fixed.Config(2))
        self.asked = self.told = 0

    def rests(self, batch: Batch) -> bool:
        self.asked += 1
        return True

    def idle(self, batch: Batch) -> int:
        return 3

    def observe(self, batch: Batch, draft: Draft, verdict: Verdict) -> None:
        self.told += 1


class Noted(GivenCosts):
    """Costs that note what they are told of: rows, draft forwards and tokens of steps, and their seconds."""

    def __init__(self) -> None:
        super().__init__(0.1)
        self.steps: list[tuple[int, int, int]] = []
        self.seconds: list[float] = []

    def observe(self, rows: int, forwards: int, draft_s: float, tokens: int, verify_s: float) -> None:
        super().observe(rows, forwards, draft_s, tokens, verify_s)
        self.steps.append((rows, forwards, tokens))
        self.seconds.append(draft_s + verify_s)


def test_nobody_is_asked_about_idle_steps_and_costs_are_told_of_them_later() -> None:
    policy, costs = Idle(), Noted()
    one = Engine(TARGET, ModelDrafter(None, DRAFT), policy, Chain(), Rejection(), decode=decode, costs=costs)
    rows = one.start([replace(MIXED[1], max_new_tokens=2), MIXED[2]])
    told = []
    for _ in range(6):
        one.step()
        told.append((policy.asked, policy.told, len(costs.steps)))
    # Of the first step nobody is told before the fourth, which is the last of those that it was asked about.
    assert told == [(1, 0, 0), (1, 0, 0), (1, 0, 0), (1, 1, 4), (2, 1, 4), (2, 1, 4)]
    assert costs.steps == [(2, 0, 2), (2, 0, 2), (1, 0, 1), (1, 0, 1)]  # the other row has left meanwhile
    assert all(0 < seconds < 60 for seconds in costs.seconds)
    rows += one.start(MIXED[:1])
    one.step()
    assert policy.asked == 3  # since somebody joined
    finish(one)
    assert [row.output for row in rows[1:]] == [alone(row.request, plain())[0] for row in rows[1:]]


def test_a_cancelled_row_keeps_its_text_and_disturbs_nobody() -> None:
    one = engine()
    rows, events = one.start(MIXED[:3]), []
    for _ in range(2):
        events += one.step()
    gone = rows[0]
    last = one.cancel(gone)
    assert (last.id, last.tokens, last.origins, last.finish) == (gone.id, [], [], FinishReason.CANCELLED)
    events.append(last)
    assert len(one.batch.cache.lengths) == 2
    rows += one.start(MIXED[3:])  # takes the free place
    assert len(one.batch.cache.lengths) == 3
    events += finish(one)
    whole, _, _ = alone(gone.request, engine())
    assert 0 < len(gone.output) < len(whole)
    assert gone.output == whole[: len(gone.output)]
    assert text(events, gone) == decode(gone.output)
    for row in rows[1:]:
        assert (row.output, text(events, row), row.finish) == alone(row.request, engine())


def test_cancelling_gives_out_text_that_was_held_back() -> None:
    request = replace(MIXED[0], stop=(decode(alone(MIXED[0], engine())[0][:7]) + "never",))
    one = engine(k=0)
    (row,) = one.start([request])
    events = one.step() + one.step()
    assert text(events, row) == ""
    assert one.cancel(row).text == decode(row.output) != ""


def test_a_row_that_already_ended_cannot_be_cancelled() -> None:
    one = engine()
    (row,) = one.start(MIXED[:1])
    finish(one)
    with pytest.raises(ValueError, match="not in"):
        one.cancel(row)
    assert row.finish is FinishReason.LENGTH


# Text ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [Rejection, Block, Greedy])
def test_stop_strings_cut_where_plain_decoding_cuts(rule: type[AcceptanceRule]) -> None:
    draw = random.Random(0)
    whole, _, _ = alone(MIXED[0], plain())
    full, stopped = decode(whole), 0
    for _ in range(6):
        at = draw.randrange(len(full) - 4)
        stop = (full[at : at + draw.randrange(1, 4)], "..a", full[at + 1 : at + 4])
        request = replace(MIXED[0], stop=stop)
        want = alone(request, plain())
        assert alone(request, engine(k=4, rule=rule)) == want
        assert want[1] == full[: min(full.find(s) for s in stop if s in full)]
        stopped += want[2] is FinishReason.STOP
    assert stopped == 6


def test_a_stop_string_inside_an_accepted_draft_drops_what_was_drafted_after_it() -> None:
    own = decode(alone(MIXED[0], plain())[0])
    one = engine(k=9, draft=TARGET)  # drafts what the target says, so every token is accepted
    (row,) = one.start([replace(MIXED[0], stop=(own[3:5],))])
    (event,) = finish(one)
    assert (event.text, decode(event.tokens)) == (own[:3], own[:5])
    assert event.origins == [Origin.ACCEPTED] * 5
    assert (row.finish, row.counts.num_tokens, row.counts.num_cut) == (FinishReason.STOP, 5, 1)


def test_a_stop_token_inside_an_accepted_draft_ends_it_like_plain_decoding() -> None:
    whole, _, _ = alone(MIXED[0], plain())
    for position in range(6):
        request = replace(MIXED[0], stop_token_ids=frozenset({whole[position]}))
        want = alone(request, plain())
        assert want[0] == whole[: whole.index(whole[position]) + 1]
        assert want[2] is FinishReason.STOP
        for draft in (DRAFT, TARGET):
            assert alone(request, engine(k=5, draft=draft)) == want


def test_text_that_may_still_change_is_held_back() -> None:
    every = frozenset(range(len(LETTERS)))
    one = Engine(TARGET, NoDraft(), Fixed(), Chain(), Rejection(), decode=decode, open_ids=every)
    (row,) = one.start(MIXED[:1])
    *before, last = finish(one)
    assert "".join(event.text for event in before) == ""
    assert last.text == decode(row.output)


# Lengths -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", MIXED, ids=["greedy", "top-p", "min-p and penalties", "hot"])
def test_drafting_nothing_equals_no_drafter(request_: Request) -> None:
    assert alone(request_, engine(k=0)) == alone(request_, plain())


def test_one_new_token() -> None:
    request = replace(MIXED[0], max_new_tokens=1)
    output, said, reason = alone(request, engine())
    assert (output, reason) == (alone(MIXED[0], plain())[0][:1], FinishReason.LENGTH)
    assert said == decode(output)


@pytest.mark.parametrize("free", [1, 2, 7])
def test_generation_ends_exactly_at_the_context_limit(free: int) -> None:
    prompt = tuple(i % 11 for i in range(TARGET.max_length - free))
    request = Request(prompt, max_new_tokens=100)
    want = alone(request, plain())
    assert len(want[0]) == free
    assert want[2] is FinishReason.LENGTH
    for k in (1, 4, 20):
        assert alone(request, engine(k)) == want


@pytest.mark.parametrize("context", [1, 4, 15])
def test_a_draft_with_a_smaller_context_changes_nothing_but_speed(context: int) -> None:
    small = TinyLlama(2)
    small.max_length = context
    one = engine(k=4, draft=small)
    greedy = [replace(request, sampling=Sampling()) for request in MIXED]
    rows = one.start(greedy)  # prompts shorter and longer than the draft's context
    finish(one)
    for row in rows:
        assert row.output == alone(row.request, plain())[0]
    one = engine(k=4, draft=small)
    rows = one.start(MIXED)
    finish(one)
    assert [len(row.output) for row in rows] == [request.max_new_tokens for request in MIXED]
    for row in rows:
        assert row.output == alone(row.request, engine(k=4, draft=small))[0]


def test_nodes_per_step_are_limited() -> None:
    one = Engine(TARGET, ModelDrafter(None, TARGET), Fixed(Fixed.Config(9)), Chain(), Rejection(), max_nodes=4)
    one.start(MIXED[:1])
    assert len(one.step()[0].tokens) == 4  # three drafted, one bonus


@pytest.mark.parametrize("rule", [Rejection, Block, Greedy])
@pytest.mark.parametrize("whose", ["target", "draft"])
def test_numbers_that_are_none_end_in_a_clear_error(
    rule: type[AcceptanceRule], whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = engine(rule=rule)
    sick = TARGET if whose == "target" else DRAFT
    forward = HFModel.forward

    def overflow(self: HFModel, *args: Any, **options: Any) -> Scores:
        scores = forward(self, *args, **options)
        return Scores(scores.logits * math.nan, scores.hidden) if self is sick else scores

    one.start(MIXED[:1])
    one.step()
    monkeypatch.setattr(HFModel, "forward", overflow)
    with pytest.raises(GenerationError, match="no usable probabilities") as caught:
        one.step()
    assert "float32" in str(caught.value.hint)


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "rule", "match"),
    [
        (Request((1,) * 64), Rejection, "the prompt has 64 tokens, the model's context 64"),
        (Request((1,) * 99), Rejection, "the prompt has 99 tokens, the model's context 64"),
        (Request((1,), Sampling(temperature=0.5)), Greedy, "rule `Greedy` works at temperature 0 only, not at 0.5"),
        (Request((1, 11)), Rejection, "token id 11 is outside the vocabulary"),
        (Request((-1,)), Rejection, "token id -1 is outside the vocabulary"),
        (Request((1,), Sampling(logit_bias={11: 1.0})), Rejection, "token id 11 is outside the vocabulary"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused_before_anything_runs(
    request_: Request, rule: type[AcceptanceRule], match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HFModel, "forward", None)
    one = engine(rule=rule)
    with pytest.raises(RequestError, match=match) as caught:
        one.start([Request((1, 2)), request_])
    assert caught.value.hint
    assert one.batch.rows == []


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"prompt": ()}, "the prompt is empty"),
        ({"max_new_tokens": 0}, "max_new_tokens cannot be 0"),
        ({"stop": ("a", "")}, "a stop string is empty"),
        ({"logprobs": -1}, "logprobs cannot be -1"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(fields: dict[str, object], match: str) -> None:
    with pytest.raises(RequestError, match=match) as caught:
        replace(MIXED[0], **fields)
    assert caught.value.hint


class DistinctOnly(Rejection):
    """A rule for draws without replacement."""

    handles = frozenset({Drawn.DISTINCT})


class AnyTree(Rejection):
    """A rule for trees."""

    max_children = None


class Mute(ModelDrafter):
    """A drafter without logits."""

    provides = frozenset()


@pytest.mark.parametrize(
    ("drafter", "length", "shape", "rule", "match"),
    [
        (ModelDrafter, Fixed, Chain, DistinctOnly, "drafter `ModelDrafter` chooses children as iid, which rule"),
        (Mute, Confidence, Chain, Rejection, "length policy `Confidence` needs prob, which drafter `Mute` has not"),
        (ModelDrafter, Fixed, Twins, AnyTree, "`ModelDrafter` handles 1 child per node, shape `Twins` makes 2"),
        (ModelDrafter, Fixed, Twins, Rejection, "handles 1 child per node, shape `Twins` makes 2"),
    ],
)
def test_methods_that_do_not_fit_are_refused(
    drafter: type[Drafter], length: type[LengthPolicy], shape: type[TreeShape], rule: type[AcceptanceRule], match: str
) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        check_fit(drafter, length, shape, rule)
    assert caught.value.hint
    check_fit(ModelDrafter, Confidence, Chain, Rejection)


def test_a_model_drafter_without_a_model_is_refused() -> None:
    with pytest.raises(ForetokenError, match="needs a draft model"):
        ModelDrafter()
    with pytest.raises(ConfigError, match="temperature cannot be -1"):
        ModelDrafter(ModelDrafter.Config(temperature=-1), DRAFT)
