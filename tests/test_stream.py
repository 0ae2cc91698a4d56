"""Events carry final text, and log-probabilities of the nodes that chose the tokens."""

import math
from dataclasses import replace

import pytest
import torch

from foretoken.request import Request, Sampling
from foretoken.stream import stream
from foretoken.tokenizer import TextPieces
from foretoken.types import Committed, FinishReason, Origin, Row, Scores

LETTERS = "abcdef"


def gained(tokens: list[int], nodes: list[int], logprobs: int | None = None, **options: object) -> Committed:
    """What a row gained in one step, as `commit` leaves it."""
    text = TextPieces(lambda ids: "".join(LETTERS[i] for i in ids), ("fff",))
    row = Row(7, Request((0,), Sampling(temperature=0.5), logprobs=logprobs), text, 100, [0, *tokens], **options)
    for token in tokens:
        text.push(token)
    return Committed(row, tokens, [Origin.ACCEPTED] * (len(tokens) - 1) + [Origin.BONUS], nodes)


@pytest.fixture
def scores() -> Scores:
    return Scores(torch.randn(2, 4, len(LETTERS), generator=torch.Generator().manual_seed(0)), None)


def test_one_event_per_row_in_order(scores: Scores) -> None:
    first = gained([1, 2], [0, 1])
    second = gained([3], [0], finish=FinishReason.STOP)
    events = stream([first, second], scores)
    assert [e.text for e in events] == ["bc", "d"]
    assert [e.tokens for e in events] == [[1, 2], [3]]
    assert events[0].origins == [Origin.ACCEPTED, Origin.BONUS]
    assert [e.finish for e in events] == [None, FinishReason.STOP]
    assert [e.logprobs for e in events] == [None, None]
    assert events[0].id == 7


def test_text_that_may_begin_a_stop_string_waits_unless_the_request_ended(scores: Scores) -> None:
    (event,) = stream([gained([1, 5, 5], [0, 1, 2])], scores)
    assert event.text == "b"
    (event,) = stream([gained([1, 5, 5], [0, 1, 2], finish=FinishReason.LENGTH)], scores)
    assert event.text == "bff"


def test_text_that_nobody_reads_as_it_grows_comes_with_the_last_event(scores: Scores) -> None:
    decoded: list[list[int]] = []
    first = gained([1, 2], [0, 1])
    row = first.row
    row.request = replace(row.request, streams=False)
    row.text = TextPieces(lambda ids: decoded.append(list(ids)) or "".join(LETTERS[i] for i in ids))
    for token in first.tokens:
        row.text.push(token)
    assert [event.text for event in stream([first], scores)] == [""]
    assert not decoded
    row.text.push(3)
    row.finish = FinishReason.LENGTH
    assert [event.text for event in stream([Committed(row, [3], [Origin.BONUS], [0])], scores)] == ["bcd"]
    assert decoded == [[1, 2, 3]]


@pytest.mark.parametrize("wanted", [0, 1, 3, len(LETTERS), 100])
def test_logprobs_are_those_of_the_nodes_before_any_sampling_parameter(scores: Scores, wanted: int) -> None:
    nodes, tokens = [0, 3, 1], [2, 2, 5]
    plain = gained([1], [0])
    events = stream([plain, gained(tokens, nodes, wanted)], scores)
    assert events[0].logprobs is None
    assert events[1].logprobs is not None
    for entry, node, token in zip(events[1].logprobs, nodes, tokens, strict=True):
        weights = [math.exp(x) for x in scores.logits[1, node].tolist()]
        want = [math.log(w / sum(weights)) for w in weights]
        assert entry.chosen == pytest.approx(want[token], abs=1e-5)
        best = sorted(range(len(want)), key=lambda i, want=want: -want[i])[:wanted]
        assert [i for i, _ in entry.top] == best
        assert [x for _, x in entry.top] == pytest.approx([want[i] for i in best], abs=1e-5)
        assert isinstance(entry.chosen, float)


def test_tokens_the_model_cannot_say_have_no_effect_on_the_others() -> None:
    logits = torch.tensor([[[0.0, 0.0, -torch.inf]]])
    text = TextPieces(lambda ids: "")
    row = Row(0, Request((0,), logprobs=3), text, 100, [0, 1])
    (event,) = stream([Committed(row, [1], [Origin.BONUS], [0])], Scores(logits, None))
    assert event.logprobs is not None
    assert event.logprobs[0].chosen == pytest.approx(math.log(0.5))
    assert event.logprobs[0].top[2] == (2, -math.inf)
