"""Tokens that a model draws by itself are those that forwards and draws on the host, one by one, would give."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from foretoken.errors import ModelError
from foretoken.models import static as models_static
from foretoken.models import static_cache
from foretoken.models.base import Stop
from foretoken.models.capture import CUDAGraphs
from foretoken.models.hf import adapt
from foretoken.models.static import StaticModel, freeze
from foretoken.models.static_chain import choose
from foretoken.rng import draw
from foretoken.sampling import warp
from foretoken.types import Continuation
from tests.contract.far import DEVICE, Far, FarDevice, far

from .drive import CLOSE, draw_by_forwards, error, keep, random_tokens, read_chain
from .families import FAMILIES, MAX_LENGTH, VOCAB, build, config, pair
from .recorder import Recorder
from .test_backends import GPU, on_gpu, recorded, static

Made = Callable[[str], tuple[Any, Any]]
backends = pytest.mark.parametrize("made", [static, recorded, pytest.param(on_gpu, marks=GPU)])
JUST_BELOW_1 = 1 - 2**-53


def same(found: Continuation, expected: Continuation) -> None:
    assert torch.equal(found.tokens.cpu(), expected.tokens)
    for name in ("prob", "logits", "hidden", "q"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert (ours is None) == (theirs is None), name
        if ours is not None:
            assert ours.shape == theirs.shape, name
            possible = theirs > -torch.inf
            assert torch.equal(ours.cpu() > -torch.inf, possible), name
            assert error(ours.cpu()[possible], theirs[possible]) < CLOSE, name


def started(model: Any, texts: Tensor, lengths: list[int]) -> Any:
    """A cache that holds so many tokens of each text."""
    cache = model.new_cache(0)
    joining = model.new_cache(len(lengths))
    if max(lengths):
        read_chain(model, joining, texts[:, : max(lengths)], last=1)
        keep(joining, *lengths)
    cache.extend(joining)
    return cache


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def compare(ours: Any, theirs: Any, at: list[int], held: list[int], count: int, heat: float = 0.0, *races: int) -> None:
    """Draw twice in a step, keep some of it, read on, and draw again; everything must be as with forwards."""
    rows, places = len(at), torch.tensor(at)
    texts = random_tokens(sum(at), rows, max(at) + 1)
    newest = texts.gather(1, (places[:, None] + torch.tensor([-1, 0])).clamp_min(0))
    caches = [started(model, texts, held) for model in (ours, theirs)]

    def go(tokens: Tensor, places: Tensor, seed: int) -> Continuation:
        drawing = numbers(seed, rows, count, *races) if heat else None
        expected = draw_by_forwards(theirs, tokens, places, caches[1], count, heat, drawing)
        found = ours.chain(tokens.to(ours.device), places, caches[0], count, heat, drawing)
        same(found, expected)
        assert torch.equal(*(cache.lengths for cache in caches))
        assert caches[0].pending == caches[1].pending
        return expected

    first = go(newest, places, 1)
    drawn = torch.cat([newest[:, 1:], first.tokens], 1)
    second = go(drawn[:, -2:], places + count, 2)
    drawn = torch.cat([drawn, second.tokens], 1)
    kept = torch.tensor([1 + (b * 3 + 2 * count - 1) % (2 * count) for b in range(rows)])  # all in the first row
    more = random_tokens(7, rows, 3)
    assert error(read_chain(ours, caches[0], more), read_chain(theirs, caches[1], more)) < CLOSE
    for cache in caches:
        keep(cache, *kept.tolist())
    assert error(read_chain(ours, caches[0], more), read_chain(theirs, caches[1], more)) < CLOSE
    for cache in caches:
        keep(cache, *[0] * rows)
    # Where everything was kept, the last drawn token is still to be read.
    last = (kept == 2 * count).long()
    before = drawn.gather(1, (kept - 1 + last)[:, None])
    go(torch.cat([before, more[:, :1]], 1), places + kept + last, 3)


@backends
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("count", [1, 3, 7])
@pytest.mark.parametrize("known", [True, False])
def test_one_row(made: Made, known: bool, count: int, temperature: float) -> None:
    compare(made("llama")[1], pair("llama")[1], [9], [9 if known else 8], count, temperature)


@backends
@pytest.mark.parametrize("count", [1, 4])
def test_a_race_is_won_by_the_token_that_wins_it_after_forwards(made: Made, count: int) -> None:
    compare(made("llama")[1], pair("llama")[1], [9, 4, 1], [8, 4, 0], count, 0.7, VOCAB)


@backends
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("name", ["llama", "gemma3", "mistral_window"])
def test_rows_of_different_lengths_some_with_an_entry_missing(made: Made, name: str, temperature: float) -> None:
    """Windows of 5, which the tokens drawn in one go leave behind."""
    compare(made(name)[1], pair(name)[1], [9, 4, 1], [8, 4, 0], 4, temperature)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family(name: str) -> None:
    compare(recorded(name)[1], pair(name)[1], [6, 9], [6, 8], 2)


@backends
def test_a_text_of_one_token(made: Made) -> None:
    """There is nothing before it."""
    compare(made("llama")[1], pair("llama")[1], [0, 3], [0, 3], 2)


@backends
def test_at_the_end_of_the_context(made: Made) -> None:
    """What does not fit any more is drawn all the same, and dropped by whoever asked."""
    ours, theirs = made("opt")[1], pair("opt")[1]  # learned positions: there are no more than fit
    texts, at = random_tokens(1, 2, MAX_LENGTH), torch.tensor([MAX_LENGTH - 2, 5])
    newest = texts.gather(1, at[:, None] + torch.tensor([-1, 0]))
    caches = [started(model, texts, [MAX_LENGTH - 2, 4]) for model in (ours, theirs)]
    expected = draw_by_forwards(theirs, newest, at, caches[1], 4, 0.0, None)
    found = ours.chain(newest, at, caches[0], 4)
    assert torch.equal(found.tokens[1].cpu(), expected.tokens[1])
    assert torch.equal(found.tokens[0, :2].cpu(), expected.tokens[0, :2])
    assert error(found.logits[0, :2], expected.logits[0, :2]) < CLOSE
    assert error(found.logits[1], expected.logits[1]) < CLOSE


@backends
def test_a_row_whose_newest_token_is_elsewhere_is_left_alone(made: Made) -> None:
    """It may have outgrown the context, or have to catch up first."""
    ours, theirs = made("llama")[1], pair("llama")[1]
    texts, at = random_tokens(3, 2, 12), torch.tensor([11, 6])
    caches = [started(model, texts, [5, 6]) for model in (ours, theirs)]
    ours.chain(texts.gather(1, at[:, None] + torch.tensor([-1, 0])), at, caches[0], 3)
    assert caches[0].lengths.tolist() == [5, 6]
    keep(caches[0], 0, 0)
    rest = texts[:, 5:8]
    assert error(read_chain(ours, caches[0], rest), read_chain(theirs, caches[1], rest)) < CLOSE


@pytest.mark.parametrize("vocab_size", [50, 80])
@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_drafts_with_embeddings_of_another_size(vocab_size: int, temperature: float) -> None:
    theirs = adapt(build(config("llama")), MAX_LENGTH, vocab_size)
    ours = freeze(theirs, Recorder())
    texts, at = random_tokens(5, 1, 10), torch.tensor([9])
    texts[:, 8] = vocab_size - 1  # of the target's, which the smaller embedding does not have
    caches = [started(model, texts, [8]) for model in (ours, theirs)]
    uniforms = numbers(4, 1, 4) if temperature else None
    found = ours.chain(texts[:, -2:], at, caches[0], 4, temperature, uniforms)
    same(found, draw_by_forwards(theirs, texts[:, -2:], at, caches[1], 4, temperature, uniforms))
    assert int(found.tokens.max()) < min(vocab_size, 64)


# The draw ---------------------------------------------------------------------------------------------------------


def test_for_any_number_the_token_is_the_one_that_its_law_says() -> None:
    """The same as on the host, to the last bit."""
    ours = recorded("llama")[1]
    texts, at = random_tokens(2, 3, 7), torch.tensor([6, 5, 6])
    for seed in range(40):
        uniforms = numbers(seed, 3, 4)
        if seed == 0:
            uniforms[:, 0], uniforms[:, 1] = 0.0, JUST_BELOW_1
        found = ours.chain(texts[:, -2:], at, started(ours, texts, [5, 5, 6]), 4, 2.0, uniforms)
        for k in range(4):
            assert found.tokens[:, k].tolist() == draw(found.q[:, k], uniforms[:, k].tolist())
            own = found.logits[:, k].softmax(-1).gather(1, found.tokens[:, k, None])[:, 0]
            assert torch.equal(found.prob[:, k], own)


@pytest.mark.parametrize("temperature", [0.01, 0.5, 1.0, 10.0])
@pytest.mark.parametrize("start", [0, 3])
def test_what_is_impossible_never_comes_up(start: int, temperature: float) -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(1))
    logits[start::3] = -torch.inf
    uniforms = torch.cat([torch.linspace(0, 1, 4001, dtype=torch.float64)[:-1], torch.tensor([JUST_BELOW_1]).double()])
    warmth = torch.full((len(uniforms), 1), temperature)
    token, law = choose(logits.expand(len(uniforms), -1), warmth, uniforms[:, None])
    assert token.tolist() == draw(warp(logits, temperature).expand(len(uniforms), -1), uniforms.tolist())
    assert bool((law.gather(1, token[:, None]) > 0).all())
    assert error(law[0], warp(logits, temperature)) < 1e-6


def test_sums_that_are_rounded_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parallel sum may fall, or rise where nothing is added; neither lets an impossible token come up."""
    law = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]])
    sums = torch.tensor([[1e-17, 0.5, 0.5 + 2e-16, 1.0, 1 + 2e-16]], dtype=torch.float64)
    monkeypatch.setattr(Tensor, "cumsum", lambda *_, **__: sums)
    for uniform, expected in ((0.0, 1), (5e-18, 1), (0.5, 3), (JUST_BELOW_1, 3)):
        token, _ = choose(law.log(), torch.ones(1, 1), torch.tensor([[uniform]], dtype=torch.float64))
        assert token.tolist() == [expected]


def test_no_numbers_give_a_token_that_can_be_read() -> None:
    """A larger one would stop a GPU for good before anybody could say what is wrong."""
    token, _ = choose(torch.full((1, 5), torch.nan), torch.ones(1, 1), torch.tensor([[0.9]], dtype=torch.float64))
    assert token.tolist() == [0]


# Stops ------------------------------------------------------------------------------------------------------------


def fewer(drawn: Continuation, given: Tensor) -> Tensor:
    """Go on below so many tokens."""
    return drawn.tokens.shape[1] < given[:, 0]


def unskipped(name: str) -> tuple[Any, Any]:
    """As `recorded`, without conditional nodes."""
    return pair(name)[0], freeze(pair(name)[1], Recorder(skips=False))


@pytest.mark.parametrize("made", [static, recorded, unskipped, pytest.param(on_gpu, marks=GPU)])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_it_stops_where_a_rule_says_so(made: Made, name: str, temperature: float) -> None:
    """And what was drawn until then is what it would have drawn, and can be read on from."""
    model, count = made(name)[1], 7
    texts, places = random_tokens(14, 3, 10), torch.tensor([9, 4, 6])
    newest = texts.gather(1, places[:, None] + torch.tensor([-1, 0]))
    uniforms = numbers(1, 3, count) if temperature else None
    for most, room in (([3, 1, 2], [7, 7, 7]), ([9, 9, 9], [1, 4, 2]), ([9, 9, 9], [7, 5, 7]), ([1, 1, 1], [7] * 3)):
        caches = [started(one, texts, [8, 4, 6]) for one in (model, pair(name)[1])]
        whole = draw_by_forwards(pair(name)[1], newest, places, caches[1], count, temperature, uniforms)
        stop = Stop(room, torch.tensor([[float(one)] for one in most], dtype=torch.float64), fewer)
        found = model.chain(newest.to(model.device), places, caches[0], count, temperature, uniforms, watch=stop)
        expected = list(map(min, most, room))
        assert found.wanted is not None
        assert found.wanted.tolist() == expected
        assert (found.logits, found.hidden, found.q is None) == (None, None, not temperature)
        for b, wanted in enumerate(expected):
            assert torch.equal(found.tokens[b, :wanted].cpu(), whole.tokens[b, :wanted])
            assert error(found.prob[b, :wanted].cpu(), whole.prob[b, :wanted]) < CLOSE
            if found.q is not None and whole.q is not None:
                assert error(found.q[b, :wanted].cpu(), whole.q[b, :wanted]) < CLOSE
        for cache in caches:
            keep(cache, *expected)  # the root, and all drawn ones but the last
        more = random_tokens(7, 3, 3)
        assert error(read_chain(model, caches[0], more), read_chain(pair(name)[1], caches[1], more)) < CLOSE


def test_what_no_row_wants_is_left_out() -> None:
    for skips in (True, False):
        recorder = Recorder(skips)
        model = freeze(pair("llama")[1], recorder)
        assert model.stops == skips
        cache = started(model, random_tokens(1, 3, 9), [9, 7, 8])
        for most in ([1, 1, 1], [3, 1, 2], [7, 2, 1], [9, 9, 9]):
            before = recorder.skipped
            stop = Stop([7] * 3, torch.tensor([[float(one)] for one in most]), fewer)
            model.chain(random_tokens(1, 3, 2), cache.lengths, cache, 7, watch=stop)
            keep(cache, 0, 0, 0)
            assert recorder.skipped - before == (7 - min(max(most), 7)) * skips


def test_a_rule_is_told_all_that_was_drawn_so_far() -> None:
    model, other = static("llama")[1], pair("llama")[1]
    heard: list[Continuation] = []

    def wants(drawn: Continuation, given: Tensor) -> Tensor:
        parts = (drawn.tokens, drawn.prob, drawn.logits, drawn.hidden)
        heard.append(Continuation(*(one.clone() for one in parts if one is not None), None))
        assert given[:2, :2].tolist() == [[0.5, 2.0], [0.25, 3.0]]
        return given[:, 0] > 0

    texts, at = random_tokens(1, 2, 9), torch.tensor([8, 6])
    newest = texts.gather(1, at[:, None] + torch.tensor([-1, 0]))
    caches = [started(one, texts, [8, 6]) for one in (model, other)]
    stop = Stop([4, 4], torch.tensor([[0.5, 2.0], [0.25, 3.0]]), wants)
    model.chain(newest, at, caches[0], 4, watch=stop)
    whole = draw_by_forwards(other, newest, at, caches[1], 4, 0.0, None)
    assert [said.tokens.shape[1] for said in heard] == [1, 2, 3], "after the last token there is no more to draw"
    for k, said in enumerate(heard, 1):
        parts = ("tokens", "prob", "logits", "hidden")
        same(said, Continuation(*(getattr(whole, part)[:, :k] for part in parts), None))


class Odd(Recorder):
    """Conditional nodes that do not work.

    Args:
        fails: whether that is noticed at once; else every part is left out.
    """

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self._fails = fails

    def when(self, some: Tensor, part: Callable[[], None]) -> None:
        if self.skips and self._fails:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        super().when(some.logical_and(not self.skips) if self.skips else some, part)


@pytest.mark.parametrize("fails", [True, False])
def test_where_parts_cannot_be_left_out_all_is_drawn(fails: bool) -> None:
    odd = Odd(fails)
    model = freeze(pair("llama")[1], odd)
    assert not odd.skips
    assert not model.stops
    cache = started(model, random_tokens(1, 1, 9), [9])
    stop = Stop([7], torch.tensor([[3.0]]), fewer)
    found = model.chain(random_tokens(1, 1, 2), cache.lengths, cache, 7, watch=stop)
    assert found.wanted is not None
    assert found.wanted.tolist() == [3]
    assert odd.skipped == 0 or not fails


@pytest.mark.parametrize("capturing", [True, False])
@pytest.mark.parametrize("skips", [True, False])
def test_a_part_that_may_be_left_out_is_captured_apart(
    skips: bool, capturing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as a CPU can tell: with PyTorch's functions, in their order, also where the part fails."""
    done: list[Any] = []

    class Graph:
        @staticmethod
        def get_currently_capturing_graph() -> Graph:
            return Graph()

        def begin_capture_to_if_node(self, some: Tensor) -> None:
            done.append(some)

        def end_capture_to_conditional_node(self) -> None:
            done.append("end")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    graphs, some = CUDAGraphs.__new__(CUDAGraphs), torch.tensor(True)
    graphs.skips = skips
    for part in (lambda: done.append("part"), lambda: 1 // 0):
        with contextlib.suppress(ZeroDivisionError):
            graphs.when(some, part)  # type: ignore[arg-type]
    assert done == ([some, "part", "end", some, "end"] if skips and capturing else ["part"])


@GPU
def test_a_gpu_leaves_out_what_no_row_wants() -> None:
    """If PyTorch has conditional nodes at all."""
    graphs = CUDAGraphs(torch.device("cuda"))
    assert graphs.skips == hasattr(torch.cuda.CUDAGraph, "begin_capture_to_if_node")


# Captures ---------------------------------------------------------------------------------------------------------


def once(model: StaticModel, cache: Any, seed: int, count: int, temperature: float = 0.0) -> Continuation:
    rows, at = len(cache.lengths), cache.lengths + cache.pending
    uniforms = numbers(seed, rows, count) if temperature else None
    return model.chain(random_tokens(seed, rows, 2), at, cache, count, temperature, uniforms)


def test_a_chain_is_one_launch_and_its_size_is_captured_once() -> None:
    recorder = Recorder()
    model = freeze(pair("llama")[1], recorder)
    cache = started(model, random_tokens(1, 3, 9), [9, 7, 8])
    for count, temperature in ((4, 0.0), (2, 0.0), (4, 0.5), (4, 1.5)):
        captured, replays = recorder.captured, recorder.replays
        for seed in range(5):
            once(model, cache, seed, count, temperature)
            keep(cache, seed % count, 1, 0)
        assert recorder.captured == captured + (temperature < 1)
        assert recorder.replays == replays + 5
    cache.release([1])
    captured = recorder.captured
    once(model, cache, 1, 4)
    assert recorder.captured == captured + 1, "two rows"
    del cache
    cache = started(model, random_tokens(2, 4, 5), [5, 1, 2, 3])
    captured = recorder.captured
    once(model, cache, 1, 4)
    assert recorder.captured == captured, "a text later"


def test_larger_texts_share_their_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logits of all that is drawn are the largest thing there is, so every view of the cache has the same."""
    monkeypatch.setattr(models_static, "LEAST", 8)
    monkeypatch.setattr(static_cache, "CAPACITY", 8)
    recorder = Recorder()
    model = freeze(pair("llama")[1], recorder)
    for held in (4, 12, 30, 50):
        compare(model, pair("llama")[1], [held], [held], 2)
    loops = list(model._loops.values())
    assert len(loops) == 1
    assert loops[0].logits.shape == (1, 15, 64)
    assert recorder.captured > 4


def test_it_draws_fewer_where_their_logits_would_take_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = static("llama")[1]
    assert [model.ahead(rows) for rows in (1, 3, 64)] == [15, 15, 15]
    monkeypatch.setattr(models_static, "SCORES", 64 * 8)
    assert [model.ahead(rows) for rows in (1, 2, 3, 5, 8, 9)] == [8, 4, 2, 1, 1, 0]


def test_results_are_not_overwritten_by_the_next_one() -> None:
    model = recorded("llama")[1]
    cache = started(model, random_tokens(1, 1, 5), [5])
    first = once(model, cache, 1, 3, 1.0)
    before = [getattr(first, name).clone() for name in ("tokens", "prob", "logits", "hidden", "q")]
    once(model, cache, 2, 3, 1.0)
    after = [getattr(first, name) for name in ("tokens", "prob", "logits", "hidden", "q")]
    assert all(torch.equal(*both) for both in zip(before, after, strict=True))


def test_one_that_fails_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = static("gemma3")[1], pair("gemma3")[1]
    texts, at = random_tokens(1, 2, 9), torch.tensor([8, 8])
    caches = [started(one, texts, [7, 8]) for one in (model, other)]
    run, calls = model._run, []

    def fail(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise RuntimeError("no memory")
        return run(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(model, "_run", fail)
        with pytest.raises(RuntimeError, match="no memory"):
            model.chain(texts[:, -2:], at, caches[0], 3)
    assert (caches[0].lengths.tolist(), caches[0].pending) == ([7, 8], 0)
    expected = draw_by_forwards(other, texts[:, -2:], at, caches[1], 3, 0.0, None)
    same(model.chain(texts[:, -2:], at, caches[0], 3), expected)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_nothing_is_waited_for(name: str, temperature: float) -> None:
    model_type, settings = FAMILIES[name]
    with FarDevice() as device:
        adapted = adapt(build(config(model_type, **settings)), MAX_LENGTH)
        for part in adapted.model.modules():
            for held in (part._parameters, part._buffers):
                held.update({key: far(one.data) for key, one in held.items() if one is not None})
        adapted.device = DEVICE
        model = freeze(adapted)
        cache = started(model, random_tokens(1, 2, 9), [9, 5])
        device.waits.clear()
        drawn = once(model, cache, 1, 3, temperature)
        once(model, cache, 2, 2, temperature)
        keep(cache, 4, 1)
        once(model, cache, 3, 4, temperature)
        model._capture.skips = False  # as if captured: what is to be left out is for the device to know
        keep(cache, 1, 1)
        uniforms = numbers(4, 2, 4) if temperature else None
        stop = Stop([4, 3], torch.zeros(2, 1), lambda drawn, given: drawn.prob[:, -1] > given[:, 0])
        stopped = model.chain(random_tokens(4, 2, 2), cache.lengths, cache, 4, temperature, uniforms, watch=stop)
        assert isinstance(stopped.wanted, Far)
        assert device.waits == []
    parts = [getattr(drawn, one) for one in ("tokens", "prob", "logits", "hidden", "q")]
    assert all(isinstance(one, Far) for one in parts if one is not None)


def test_a_model_that_draws_something_else_is_refused() -> None:
    adapted = adapt(build(config("llama")), MAX_LENGTH)
    begin = adapted.model.forward

    def forward(**given: Any) -> Any:
        out = begin(**given)
        if given["input_ids"].shape[1] == 1:  # only tokens that were drawn are read one by one
            out.logits = out.logits.flip(-1)
        return out

    adapted.model.forward = forward
    with pytest.raises(ModelError, match="do not say the same") as caught:
        freeze(adapted, Recorder())
    assert "--backend torch" in str(caught.value.hint)


@backends
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_what_a_caller_looks_at_comes_along(made: Made, temperature: float) -> None:
    """Captured with the forwards, so that it says of other tokens what it said when it was captured."""
    ours, theirs = made("llama")[1], pair("llama")[1]

    def look(drawn: Continuation) -> Tensor:
        assert drawn.hidden is not None
        assert drawn.logits is not None
        return torch.stack([drawn.hidden.sum(-1), drawn.logits.amax(-1) - drawn.prob], -1)

    for seed in range(2):
        texts, at = random_tokens(seed, 3, 10), torch.tensor([9, 4, 6])
        newest = texts.gather(1, at[:, None] + torch.tensor([-1, 0]))
        uniforms = numbers(seed, 3, 3) if temperature else None
        caches = [started(model, texts, [9, 4, 6]) for model in (ours, theirs)]
        expected = draw_by_forwards(theirs, newest, at, caches[1], 3, temperature, uniforms)
        found = ours.chain(newest, at, caches[0], 3, temperature, uniforms, look)
        assert torch.equal(found.tokens, expected.tokens)
        assert all(one.device.type == "cpu" for one in (found.tokens, found.prob, found.seen))
        assert error(found.seen, look(expected)) < 10 * CLOSE
        assert error(found.prob, expected.prob) < CLOSE
        assert found.logits is found.hidden is None
        assert (found.q is None) == (expected.q is None)
        if expected.q is not None:
            assert error(found.q, expected.q) < CLOSE
