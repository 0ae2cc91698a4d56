"""What every backend must do, in float32: give the logits of torch, whatever is read, kept, hidden and forgotten.

CUDA graphs are tested on a CPU as well: a recorder stands in for them, which runs the operations of one step again on
the same memory. Whatever a step decides on the host is frozen there as it is in a graph.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import foretoken
from foretoken.errors import ModelError
from foretoken.models import source, static_cache
from foretoken.models import static as models_static
from foretoken.models.base import Places
from foretoken.models.capture import CUDAGraphs, fastest
from foretoken.models.hf import adapt
from foretoken.models.static import StaticModel, freeze
from foretoken.models.static_inputs import WINDOW, Inputs, Reading
from tests.contract.far import DEVICE, GPU, Far, FarDevice, far

from . import test_families
from .drive import CLOSE, error, keep, random_tokens, read_chain
from .families import FAMILIES, MAX_LENGTH, build, config, converted, pair
from .recorder import Recorder


@functools.cache
def static(name: str) -> tuple[Any, StaticModel]:
    """As `families.pair`, with steps that run as they are."""
    return pair(name)[0], freeze(pair(name)[1])


@functools.cache
def recorded(name: str) -> tuple[Any, StaticModel]:
    """As `families.pair`, with steps that are captured."""
    return pair(name)[0], freeze(pair(name)[1], Recorder())


@functools.cache
def on_gpu(name: str) -> tuple[Any, StaticModel]:
    """As `families.pair`, with CUDA graphs."""
    model_type, settings = FAMILIES[name]
    there = torch.device("cuda")
    return pair(name)[0], freeze(adapt(build(config(model_type, **settings)).to(there), MAX_LENGTH), fastest(there))


def openvino(name: str) -> tuple[Any, Any]:
    """As `families.pair`, on OpenVINO."""
    return converted(name, "none")


OPENVINO = pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra `openvino`")
MADE = [static, recorded, pytest.param(on_gpu, marks=GPU), pytest.param(openvino, marks=OPENVINO)]
Made = Callable[[str], tuple[Any, Any]]
backends = pytest.mark.parametrize("made", MADE)


@pytest.mark.parametrize(
    "test",
    [
        test_families.test_chunks_then_single_tokens,
        test_families.test_tree_commit_and_rollback,
        test_families.test_ragged_rows_that_leave_and_join,
    ],
)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_in_static_shapes(test: Callable[[str], None], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_families, "pair", recorded)
    test(name)


def random_mask(rng: random.Random, rows: int, earlier: int, new: int) -> torch.Tensor:
    """[B, N, P+N] bool. Each token sees itself and any of those before it."""
    mask = torch.ones(rows, new, earlier + new, dtype=torch.bool).tril(earlier)
    if rng.random() < 0.7:
        drawn = torch.rand(mask.shape, generator=torch.Generator().manual_seed(rng.randrange(10**6))) < 0.6
        mask &= drawn | torch.eye(new, earlier + new, dtype=torch.bool).roll(earlier, 1)
    return mask


@backends
@pytest.mark.parametrize("seed", range(6))
def test_random_operations_give_the_logits_of_torch(made: Made, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees in several pieces, masks that hide pending tokens, ragged rows that join and leave, over much storage."""
    monkeypatch.setattr(static_cache, "CAPACITY", 8)
    monkeypatch.setattr(models_static, "LEAST", 8)
    rng = random.Random(seed)
    theirs, ours = pair("llama")[1], made("llama")[1]
    caches = [model.new_cache(0) for model in (theirs, ours)]

    def read(model: Any, cache: Any, width: int, seeds: int, last: int = 0) -> torch.Tensor:
        rows = len(cache.lengths)
        mask = random_mask(random.Random(seeds), rows, cache.pending, width)
        deep = cache.pending + torch.arange(width)
        positions = cache.lengths[:, None] + torch.minimum(deep, deep // 2 + 1)
        return model.forward(random_tokens(seeds, rows, width), cache, Places(positions, mask), last).logits

    for _ in range(25):
        rows, pending = len(caches[0].lengths), caches[0].pending
        action = rng.choice(["join", "read", "read", "read", "commit", "release"])
        if action == "join" and not pending and rows < 5:
            width, lengths = 30, [rng.randrange(31) for _ in range(rng.randrange(1, 3))]
            for model, cache in zip((theirs, ours), caches, strict=True):
                joining = model.new_cache(len(lengths))
                read_chain(model, joining, random_tokens(seed, len(lengths), width), last=1)
                keep(joining, *lengths)
                cache.extend(joining)
        elif action == "read" and rows and int(caches[0].lengths.max()) + pending + 5 < MAX_LENGTH:
            width, seeds = rng.randrange(1, 6), rng.randrange(10**6)
            last = rng.choice([0, 0, 1])
            expected, found = (
                read(model, cache, width, seeds, last) for model, cache in zip((theirs, ours), caches, strict=True)
            )
            assert found.shape == expected.shape
            assert error(found, expected) < CLOSE
        elif action == "commit" and pending:
            paths = [sorted(rng.sample(range(pending), rng.randrange(pending + 1))) for _ in range(rows)]
            for cache in caches:
                cache.commit(paths)
        elif action == "release" and rows and not pending:
            gone = rng.sample(range(rows), rng.randrange(1, rows + 1))
            for cache in caches:
                cache.release(gone)
        assert torch.equal(*(cache.lengths for cache in caches))
        assert caches[0].pending == caches[1].pending


@backends
def test_hidden_states_are_what_the_output_embedding_reads(made: Made) -> None:
    tokens = random_tokens(1, 2, 5)
    scores = []
    for model in (pair("qwen3")[1], made("qwen3")[1]):
        scores.append(model.forward(tokens, model.new_cache(2), last=2))
    assert scores[0].hidden is not None
    assert scores[1].hidden.shape == scores[0].hidden.shape == (2, 2, 32)
    assert error(scores[1].hidden, scores[0].hidden) < CLOSE


@backends
def test_scores_are_not_overwritten_by_the_next_forward(made: Made) -> None:
    ours = made("llama")[1]
    cache = ours.new_cache(1)
    first = read_chain(ours, cache, random_tokens(1, 1, 2))
    before = first.clone()
    read_chain(ours, cache, random_tokens(2, 1, 2))
    assert torch.equal(first, before)


@pytest.mark.parametrize("backend", ["graphs", pytest.param("openvino", marks=OPENVINO)])
def test_greedy_texts_are_those_of_torch_and_of_plain_decoding(backend: str) -> None:
    prompts = ["What is 2 + 3?", "Name a colour, and say why you like it.", "Write a haiku about rain."]
    answers = []
    for one, draft in (("torch", "none"), ("torch", None), (backend, "none"), (backend, None)):
        model = foretoken.load("builtin:pair", draft, dtype="float32", backend=one)
        assert model.models[0].backend == one
        answers.append([answer.token_ids for answer in model.generate(prompts, max_new_tokens=40)])
    assert answers[1:] == answers[:1] * 3


# Static shapes ------------------------------------------------------------------------------------------------------


def generate(model: StaticModel, *lengths: int) -> list[torch.Tensor]:
    """Logits of a text per row, in steps of different sizes, from a cache of its own."""
    cache, logits = model.new_cache(0), []
    joining = model.new_cache(len(lengths))
    read_chain(model, joining, random_tokens(1, len(lengths), max(lengths)), last=1)
    keep(joining, *lengths)
    cache.extend(joining)
    for size in (1, 3, 1, 2):
        logits.append(read_chain(model, cache, random_tokens(size, len(lengths), size)))
        keep(cache, *[size] * len(lengths))
    return logits


def test_the_next_text_captures_nothing_new() -> None:
    recorder = Recorder()
    model = freeze(pair("llama")[1], recorder)
    first, captured = generate(model, 9, 4), recorder.captured
    replays = recorder.replays
    again = generate(model, 9, 4)
    assert all(torch.equal(*both) for both in zip(first, again, strict=True))
    assert (recorder.captured, recorder.replays) == (captured, replays + 5)


def test_sizes_are_few() -> None:
    recorder = Recorder()
    model = freeze(pair("llama")[1], recorder)
    cache, captured = model.new_cache(3), recorder.captured
    for size in range(1, 9):
        read_chain(model, cache, random_tokens(size, 3, size))
        keep(cache, 1, 1, 1)
    assert recorder.captured - captured == 4
    assert [model.width(size) for size in (1, 2, 3, 4, 5, 9, 64, 65)] == [1, 2, 4, 4, 8, 16, 64, 65]


def test_what_an_earlier_text_left_behind_does_no_harm() -> None:
    """A model that overflowed leaves numbers that are none, which a mask cannot hide."""
    model = freeze(pair("llama")[1], Recorder())
    expected = generate(model, 5)
    cache = model.new_cache(1)
    read_chain(model, cache, random_tokens(2, 1, 20))
    assert cache._storage is not None
    for part in cache._storage.parts():
        part.fill_(torch.nan)
    del cache
    assert all(torch.equal(*both) for both in zip(generate(model, 5), expected, strict=True))


def test_two_caches_at_once_do_not_share_storage() -> None:
    model = freeze(pair("llama")[1], Recorder())
    (expected,) = [generate(model, 5)]
    held = model.new_cache(1)
    read_chain(model, held, random_tokens(3, 1, 6))
    keep(held, 6)
    before = read_chain(model, held, random_tokens(4, 1, 2))
    keep(held, 0)
    assert all(torch.equal(*both) for both in zip(generate(model, 5), expected, strict=True))
    assert torch.equal(read_chain(model, held, random_tokens(4, 1, 2)), before)


def test_a_long_prompt_is_read_as_it_is() -> None:
    recorder = Recorder()
    model = freeze(pair("llama")[1], recorder)
    captured = recorder.captured
    tokens = random_tokens(1, 2, 64)
    cache, other = model.new_cache(2), pair("llama")[1].new_cache(2)
    for start, size in ((0, 1), (1, 63)):  # the second with an entry pending, which makes 64
        found = read_chain(model, cache, tokens[:, start : start + size])
        assert error(found, read_chain(pair("llama")[1], other, tokens[:, start : start + size])) < CLOSE
    assert recorder.captured == captured + 2
    keep(cache, 20, 30)
    keep(other, 20, 30)
    for model_, cache_ in ((model, cache), (pair("llama")[1], other)):
        read_chain(model_, cache_, tokens[:, :32])
    found = read_chain(model, cache, tokens[:, :33], last=1)  # 65 are pending then
    assert error(found, read_chain(pair("llama")[1], other, tokens[:, :33], last=1)) < CLOSE
    assert recorder.captured <= captured + 3


def test_a_forward_that_fails_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """With windows, for which positions of what is pending are kept."""
    model, other = static("gemma3")[1], pair("gemma3")[1]
    caches = model.new_cache(1), other.new_cache(1)
    for one, cache in zip((model, other), caches, strict=True):
        read_chain(one, cache, random_tokens(1, 1, 9))
        keep(cache, 9)
        read_chain(one, cache, random_tokens(2, 1, 3))
    with monkeypatch.context() as patch:
        patch.setattr(model, "_step", lambda *_: (_ for _ in ()).throw(RuntimeError("no memory")))
        with pytest.raises(RuntimeError, match="no memory"):
            read_chain(model, caches[0], random_tokens(3, 1, 2))
    found, expected = (
        read_chain(one, cache, random_tokens(4, 1, 4)) for one, cache in zip((model, other), caches, strict=True)
    )
    assert error(found, expected) < CLOSE


@pytest.mark.parametrize("new", [1, 3, WINDOW])
def test_what_is_packed_into_one_tensor_comes_out_again(new: int) -> None:
    """Up to the last bit; padding sees nothing that is pending, and goes to the slot nobody reads."""
    rows, width, capacity = 3, static_cache.bucket(new), 100
    draw = functools.partial(torch.randint, 1000, (rows, new), generator=torch.Generator().manual_seed(new))
    mask = torch.rand(rows, new, WINDOW, generator=torch.Generator().manual_seed(1)) < 0.5
    mask[0] = True
    given = Reading(draw()[:, 0], draw(), draw(), draw() % capacity, torch.arange(rows * WINDOW).view(rows, -1), mask)
    inputs = Inputs(4, width, torch.device("cpu"))
    for _ in range(2):  # what was there before leaves no trace
        inputs.held.fill_(-1)
        inputs.write(given, capacity)
        found, places = inputs.read(), given.at(torch.device("cpu"), capacity).slots
        assert torch.equal(found.lengths[:rows], given.lengths)
        for name in ("tokens", "positions"):
            assert torch.equal(getattr(found, name)[:rows, :new], getattr(given, name))
        assert found.known is not None
        assert given.known is not None
        assert torch.equal(found.known[:rows], given.known)
        assert torch.equal(found.slots[:rows, :new], places)
        assert torch.equal(found.mask[:rows, :new], mask)
        assert not found.mask[rows:].any()
        assert not found.mask[:, new:].any()
        assert bool((found.slots[rows:] % (capacity + 1) == capacity).all())


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_a_forward_waits_for_nothing(name: str) -> None:
    """The model's own code does not, either."""
    model_type, settings = FAMILIES[name]
    with FarDevice() as device:
        adapted = adapt(build(config(model_type, **settings)), MAX_LENGTH)
        for part in adapted.model.modules():
            for held in (part._parameters, part._buffers):
                held.update({key: far(one.data) for key, one in held.items() if one is not None})
        adapted.device = DEVICE
        model = freeze(adapted)
        cache = model.new_cache(0)
        joining = model.new_cache(2)
        read_chain(model, joining, random_tokens(1, 2, 9), last=1)
        keep(joining, 9, 5)
        cache.extend(joining)
        device.waits.clear()
        logits = []
        for size in (1, 3, 1):
            logits.append(read_chain(model, cache, random_tokens(size, 2, size)))
        cache.commit([[0, 2], [1]])
        cache.release([0])
        logits.append(read_chain(model, cache, random_tokens(4, 1, 2)))
        assert device.waits == []
    assert all(isinstance(one, Far) for one in logits)


@pytest.mark.parametrize("what", ["waits", "says something else"])
def test_a_model_that_cannot_be_captured_is_refused(what: str) -> None:
    adapted = adapt(build(config("llama")), MAX_LENGTH)
    begin = adapted.model.forward

    def forward(**given: Any) -> Any:
        out = begin(**given)
        if given["input_ids"].shape[1] == 8:
            if what == "waits":
                assert out.logits.max() < 100
            else:
                out.logits = out.logits.flip(-1)
        return out

    adapted.model.forward = forward
    with pytest.raises(ModelError, match="captured: .* waits for" if what == "waits" else "the same") as caught:
        freeze(adapted, Recorder())
    assert "--backend torch" in str(caught.value.hint)


def test_choosing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source.pick_backend("auto", torch.device("cuda")) == "graphs"
    assert source.pick_backend("torch", torch.device("cuda")) == "torch"
    assert fastest(torch.device("cpu")) is None
    assert isinstance(fastest(torch.device("cuda")), CUDAGraphs)
    build(config("llama", num_hidden_layers=1)).save_pretrained(tmp_path)
    checkpoint = source.Checkpoint(str(tmp_path), "target")
    assert checkpoint.load("float32", "cpu", None, "graphs").backend == "graphs"

    def refuse(*_: Any) -> None:
        raise ModelError("its steps cannot be captured")

    monkeypatch.setattr(source, "freeze", refuse)
    with pytest.raises(ModelError, match="cannot be captured"):
        checkpoint.load("float32", "cpu", None, "graphs")
    monkeypatch.setattr(source, "pick_backend", lambda *_: "graphs")
    model = checkpoint.load("float32", "cpu")
    assert model.backend == "torch"
    assert "runs on torch: its steps cannot be captured" in str(model.note)
