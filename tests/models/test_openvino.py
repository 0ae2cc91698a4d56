"""The OpenVINO backend against torch, in float32, and the conversions it keeps on disk."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import foretoken
from foretoken.errors import ConfigError, ModelError
from foretoken.models import source, threads
from foretoken.models.base import Enough, Places
from foretoken.models.source import Checkpoint
from foretoken.race import winners
from foretoken.types import swap_remove

from . import test_families
from .drive import CLOSE, error, keep, random_tokens, read_chain, vanilla
from .families import FAMILIES, MAX_LENGTH, VOCAB, build, config, converted

ov = pytest.importorskip("openvino", reason="needs the extra `openvino`")
store = pytest.importorskip("foretoken.models.openvino_store")

weights = pytest.importorskip("foretoken.models.openvino_weights")

COMPRESSED = ("int8", "int4")  # what this backend compresses weights to
# Rotary embeddings; norms of queries and keys; learned positions. Compressed, llama comes below, from a checkpoint.
CONVERTED = [("llama", "none"), ("qwen3", "none"), ("opt", "none"), ("qwen3", "int8"), ("opt", "int4")]


# Reading ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "quantization"), CONVERTED)
@pytest.mark.parametrize(
    "test",
    [
        test_families.test_chunks_then_single_tokens,
        test_families.test_tree_commit_and_rollback,
        test_families.test_ragged_rows_that_leave_and_join,
    ],
)
def test_what_every_family_must_do(
    test: Callable[[str], None], name: str, quantization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compressed, too: against a model whose own weights are rounded alike."""
    monkeypatch.setattr(test_families, "pair", lambda name: converted(name, quantization))
    test(name)


def test_blocks_are_used_again() -> None:
    ours = converted("llama", "none")[1]
    cache = ours.new_cache(0)
    for size in (3, 1, 2) * 6:
        joining = ours.new_cache(size)
        read_chain(ours, joining, random_tokens(size, size, 40), last=1)
        keep(joining, *[40] * size)
        cache.extend(joining)
        assert len(swap_remove(len(cache.lengths), [0])) <= 1
        cache.release(range(len(cache.lengths) - 1))
    assert len(cache.lengths) == 1
    assert next(iter(cache.tensors.values())).shape[0] <= 16


def test_graphs_of_fixed_width_say_what_the_one_of_any_size_says(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = converted("llama", "none")[1]
    assert sorted(fixed._fixed) == [1, 4, 6, 8, 16]
    monkeypatch.setattr(foretoken.models.openvino, "COPIES", 2 * fixed.weight_bytes)
    converted.cache_clear()
    some = converted("llama", "none")[1]
    assert sorted(some._fixed) == [1, 4]
    monkeypatch.setattr(foretoken.models.openvino, "COPIES", 0)
    converted.cache_clear()
    free = converted("llama", "none")[1]
    assert not free._fixed
    tokens, found = random_tokens(1, 1, 40), []
    for model in (fixed, some, free):
        cache, at, logits = model.new_cache(1), 0, []
        for width, last in ((5, 1), (1, 0), (3, 0), (16, 2), (9, 0), (1, 1)):
            logits.append(read_chain(model, cache, tokens[:, at : at + width], last=last))
            keep(cache, width)
            at += width
        found.append(torch.cat(logits, 1))
    assert found[0].shape[1] == 1 + 1 + 3 + 2 + 9 + 1
    assert error(found[1], found[0]) < CLOSE
    assert error(found[2], found[0]) < CLOSE
    converted.cache_clear()


def test_being_told_of_longer_rows_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph is told of more entries than there are, whenever a row is longer than any before."""
    monkeypatch.setattr(foretoken.models.openvino_run, "REACH", 1)
    converted.cache_clear()
    theirs, ours = converted("llama", "none")
    tokens, mine = random_tokens(1, 2, 60), ours.new_cache(2)
    found, at = [], 0
    for width in (1, 2, 5, 1, 20, 1, 29, 1):
        found.append(read_chain(ours, mine, tokens[:, at : at + width]))
        keep(mine, width, width)
        at += width
    assert ours._any._reach == 64
    assert error(torch.cat(found, 1), torch.stack([vanilla(theirs, row) for row in tokens])) < CLOSE
    converted.cache_clear()


def test_padding_stands_within_the_context() -> None:
    ours = converted("llama", "none")[1]
    cache, tokens = ours.new_cache(1), random_tokens(1, 1, MAX_LENGTH)
    read_chain(ours, cache, tokens[:, :-2])
    keep(cache, MAX_LENGTH - 2)
    read_chain(ours, cache, tokens[:, -2:])
    assert ours.width(2) > 2
    assert max(int(inputs.arrays["positions"].max()) for inputs in ours._inputs.values()) == MAX_LENGTH - 1


def test_a_token_cannot_see_what_comes_after_it() -> None:
    ours = converted("llama", "none")[1]
    everything = torch.ones(1, 3, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="before it"):
        ours.forward(random_tokens(1, 1, 3), ours.new_cache(1), Places(torch.arange(3)[None], everything))


@pytest.mark.parametrize(("name", "joined"), [("llama", 2), ("opt", 1)])
def test_matrices_that_multiply_the_same_are_one(name: str, joined: int) -> None:
    """Queries, keys and values everywhere; gate and up where there is a gate. What they say is tested above."""
    ours = converted(name, "none")[1]
    kinds = [node.get_type_name() for node in ours._graph.get_ordered_ops()]
    assert kinds.count("VariadicSplit") == joined * len(ours._layers)
    assert kinds.count("MatMul") == (2 + 2) * len(ours._layers) + 1


# Going on by itself -------------------------------------------------------------------------------------------------


def begun(model: Any, tokens: Any, read: int) -> Any:
    """A cache that has read so many of the tokens."""
    cache = model.new_cache(1)
    read_chain(model, cache, tokens[:, :read])
    keep(cache, read)
    return cache


@pytest.mark.parametrize(("name", "quantization"), CONVERTED)
@pytest.mark.parametrize("read", [4, 5])
def test_what_is_drawn_in_one_go_is_what_forwards_say(name: str, quantization: str, read: int) -> None:
    """Whether the token before the newest one was read or not; twice in a step; and what is kept is read on from."""
    ours = converted(name, quantization)[1]
    tokens = random_tokens(3, 1, 6)
    cache, slow = begun(ours, tokens, read), begun(ours, tokens, 5)
    first = ours.chain(tokens[:, 4:], torch.tensor([5]), cache, 3)
    second = ours.chain(first.tokens[:, -2:], torch.tensor([8]), cache, 2)
    assert cache.pending == 5
    newest = tokens[:, 5:]
    for place, drawn in enumerate([*first.tokens[0].tolist(), *second.tokens[0].tolist()]):
        chain, at = (first, place) if place < 3 else (second, place - 3)
        scores = ours.forward(newest, slow)
        assert error(chain.logits[:, at], scores.logits[:, 0]) < CLOSE
        assert error(chain.hidden[:, at], scores.hidden[:, 0]) < CLOSE
        assert drawn == int(scores.logits.argmax())
        assert abs(float(chain.prob[0, at] - scores.logits[0, 0].softmax(-1)[drawn])) < CLOSE
        newest = torch.tensor([[drawn]])
    for one in (cache, slow):
        keep(one, 2)
    ahead = torch.tensor([[1, 2, 3]])
    assert cache.lengths.tolist() == [7]
    assert error(read_chain(ours, cache, ahead), read_chain(ours, slow, ahead)) < CLOSE
    with pytest.raises(ValueError, match="where the cache ends"):
        ours.chain(ahead[:, :2], torch.tensor([30]), cache, 1)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_draws_end_when_it_is_enough(temperature: float) -> None:
    """What was drawn before is what it is anyway, nothing more is pending, and what follows reads on from it."""
    ours = converted("llama", "none")[1]
    tokens, at = random_tokens(3, 1, 6), torch.tensor([5])
    uniforms = (
        torch.rand(1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) if temperature else None
    )
    full = ours.chain(tokens[:, 4:], at, begun(ours, tokens, 5), 4, temperature, uniforms)
    heard: list[list[float]] = []

    def rule(probs: Sequence[float]) -> bool:
        heard.append(list(probs))
        return len(probs) > 2

    cache = begun(ours, tokens, 5)
    found = ours.chain(tokens[:, 4:], at, cache, 4, temperature, uniforms, watch=Enough([1, 3], rule))
    assert found.wanted is not None
    assert found.wanted.tolist() == [3] == [cache.pending]
    assert found.logits is found.hidden is None, "nobody looks at them"
    for name in ("tokens", "prob", "q"):
        part, all_of_it = getattr(found, name), getattr(full, name)
        assert part is all_of_it is None or torch.equal(part, all_of_it[:, :3])
    assert heard == [pytest.approx(full.prob[0, :count].tolist()) for count in (1, 3)]
    again = ours.chain(
        found.tokens[:, -2:], at + 3, cache, 1, temperature, None if uniforms is None else uniforms[:, 3:]
    )
    assert again.tokens[0, 0] == full.tokens[0, 3]
    ends = Enough([], rule, frozenset({int(full.tokens[0, 1])}))
    first = full.tokens[0].tolist().index(int(full.tokens[0, 1])) + 1
    assert ours.chain(tokens[:, 4:], at, begun(ours, tokens, 5), 4, temperature, uniforms, watch=ends).wanted == first
    never = Enough([4], lambda probs: False)
    assert ours.chain(tokens[:, 4:], at, begun(ours, tokens, 5), 4, temperature, uniforms, watch=never).wanted is None


@pytest.mark.parametrize("read", [4, 5])
def test_a_token_is_the_one_that_its_law_and_its_number_say(read: int) -> None:
    """Exactly: the law is made of the boundaries that were really used, whatever rounding did to them."""
    ours = converted("llama", "none")[1]
    tokens = random_tokens(3, 1, 6)
    numbers = torch.rand(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    numbers[0], numbers[1] = 0, 1 - 2**-53
    for uniforms in numbers[:, None]:
        found = ours.chain(tokens[:, 4:], torch.tensor([5]), begun(ours, tokens, read), 3, 0.7, uniforms)
        law = found.q[0].double()
        assert (law >= 0).all()
        assert (law.sum(-1) - 1).abs().max() < 1e-6
        assert (law - (found.logits[0] / 0.7).softmax(-1)).abs().max() < 1e-5
        for place, token in enumerate(found.tokens[0].tolist()):
            below = float(law[place, :token].sum())
            assert below - 1e-7 <= float(uniforms[0, place]) <= below + float(law[place, token]) + 1e-7
            assert law[place, token] > 0


@pytest.mark.parametrize("per_core", [1, None])
@pytest.mark.parametrize("read", [4, 5])
def test_a_race_is_won_by_the_token_that_its_law_says(
    read: int, per_core: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by a graph that draws from any law, for models that memory holds back."""
    if per_core:
        monkeypatch.setattr(foretoken.models.openvino, "PER_CORE", per_core)
        converted.cache_clear()
    ours = converted("llama", "none")[1]
    tokens, won = random_tokens(3, 1, 6), set()
    for seed in range(8):
        numbers = torch.from_numpy(np.random.default_rng(seed).standard_exponential((1, 3, VOCAB + 5)))
        found = ours.chain(tokens[:, 4:], torch.tensor([5]), begun(ours, tokens, read), 3, 0.7, numbers)
        expected, _ = winners((found.logits[0] / 0.7).softmax(-1), numbers[0, :, :VOCAB])
        assert found.tokens[0].tolist() == expected.tolist()
        prob = found.logits[0].softmax(-1).gather(1, expected[:, None])[:, 0]
        assert error(found.prob[0], prob) < CLOSE
        assert found.q is None
        won |= set(expected.tolist())
    assert len(won) > 5
    converted.cache_clear()


def test_boundaries_make_a_law_whatever_they_add_up_to() -> None:
    chains = pytest.importorskip("foretoken.models.openvino_chain")
    short = np.array([[0.25, 0.25, 0.999]], np.float32)
    assert chains.law(short).tolist() == [[0.25, 0.0, 0.75]]
    long = np.array([[0.5, 1.0000001, 1.0000001]], np.float32)
    assert chains.law(long).tolist() == [[0.5, 0.5, 0.0]]
    assert chains.below(np.array([1 - 2**-53, 0.1, 0.0])).tolist() == [1 - 2**-24, 0.09999999403953552, 0.0]


def test_tokens_drawn_are_of_the_vocabulary() -> None:
    """A target knows fewer tokens than its draft, or more."""
    graph = converted("llama", "none")[1]._graph
    assert graph.get_results()[0].input_value(0).partial_shape[2].get_length() == VOCAB
    for wanted, got in ((7, 7), (VOCAB + 9, VOCAB)):
        made = foretoken.models.openvino_chain.drawing(graph.clone(), wanted, likeliest=False)
        assert [made.outputs[place].partial_shape.to_shape() for place in (2, 4)] == [[1, got]] * 2
        made = foretoken.models.openvino_chain.drawing(graph.clone(), wanted, likeliest=True)
        assert made.outputs[2].partial_shape.to_shape() == [1, got]


def test_models_that_memory_holds_back_draw_with_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others have graphs that do less, and say the same."""
    lean = converted("llama", "none")[1]
    assert sorted(lean._drawing._made) == [(1, False), (1, True), (2, False), (2, True)]
    monkeypatch.setattr(foretoken.models.openvino, "PER_CORE", 1)
    converted.cache_clear()
    whole = converted("llama", "none")[1]
    assert list(whole._drawing._made) == [(2, False)]
    tokens = random_tokens(3, 1, 6)
    uniforms = torch.tensor([[0.1, 0.5, 0.9]], dtype=torch.float64)
    for read in (4, 5):
        for more in ((), (0.7, uniforms)):
            one, other = (
                m.chain(tokens[:, 4:], torch.tensor([5]), begun(m, tokens, read), 3, *more) for m in (lean, whole)
            )
            assert torch.equal(one.tokens, other.tokens)
            assert error(one.logits, other.logits) < CLOSE
            assert error(one.prob, other.prob) < CLOSE
    converted.cache_clear()


def test_the_one_that_draws_soonest(monkeypatch: pytest.MonkeyPatch) -> None:
    chains = pytest.importorskip("foretoken.models.openvino_chain")
    now = 0.0

    class Takes:
        def __init__(self, *seconds: float) -> None:
            self.seconds = list(seconds) + [seconds[-1]] * 9

        def run(self, *_: object) -> None:
            nonlocal now
            now += self.seconds.pop(0)

    monkeypatch.setattr(chains, "FILLING", 8)
    monkeypatch.setattr(chains, "perf_counter", lambda: now)
    for order in (1, -1):
        slow, quick = Takes(0.1, 3.0), Takes(9.0, 8.0, 2.0)  # slow to begin, and once in between
        assert chains.quickest([slow, quick][::order], None, 4) is quick


def test_large_models_only_score(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = converted("llama", "none")[1]
    assert (ours.ahead(1), ours.ahead(2)) == (16, 0)
    monkeypatch.setattr(foretoken.models.openvino, "COPIES", ours.weight_bytes - 1)
    del ours._draws
    assert ours.ahead(1) == 0
    del ours._draws


# Compressed weights -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 4])
def test_entries_are_off_by_half_a_level_at_most(bits: int) -> None:
    drawn = torch.randn(5, 96, generator=torch.Generator().manual_seed(0))
    equal = torch.full((2, 64), -0.75)
    for weight in (drawn, equal, torch.zeros(3, 64), drawn.abs() + 1):
        packed = weights.quantize(weight, bits)
        assert packed.codes.shape[2] == (weight.shape[1] if bits == 8 else 32 if weight.shape[1] == 96 else 64)
        assert packed.codes.max() < 2**bits
        off = abs(packed.unpacked() - weight.numpy()).reshape(packed.codes.shape)
        # Another half where zero is not a multiple of the step, and must be a level all the same.
        assert (off <= packed.scales * 1.001).all()
    assert abs(weights.quantize(equal, bits).unpacked() - equal.numpy()).max() < 1e-6


def test_rows_that_no_group_divides_get_eight_bits() -> None:
    assert weights.quantize(torch.ones(2, 24), 4).bits == 8
    assert weights.quantize(torch.ones(2, 48), 4).codes.shape == (2, 3, 16)


@pytest.mark.parametrize("quantization", COMPRESSED)
def test_compressed_weights_are_small_on_disk_and_keep_their_word(
    quantization: str, checkpoint: Checkpoint, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smaller = Checkpoint(str(checkpoint.path), "target", quantization=quantization)
    tokens = random_tokens(1, 1, 6)
    full, model = load(checkpoint), load(smaller)
    sizes = [(kept.parent / store.key(one) / "model.bin").stat().st_size for one in (checkpoint, smaller)]
    assert sizes[1] < sizes[0] * (0.75 if quantization == "int8" else 0.65)  # the embedding is not tied, and stays
    rounded = checkpoint._read(torch.float32).eval()
    weights.round_weights(rounded, quantization)
    logits = read_chain(model, model.new_cache(1), tokens)[0]
    assert error(logits, vanilla(rounded, tokens[0])) < CLOSE
    assert error(logits, read_chain(full, full.new_cache(1), tokens)[0]) > CLOSE
    forbid_weights(monkeypatch)
    assert torch.equal(logits, (again := load(smaller)) and read_chain(again, again.new_cache(1), tokens)[0])


def test_what_has_no_linear_layers_is_refused(tmp_path: Path, here: Path) -> None:
    folder = save("gpt2", tmp_path / "gpt2").path
    with pytest.raises(ModelError, match="weights of `gpt2` models cannot be compressed"):
        Checkpoint(str(folder), "target", quantization="int8").load("float32", "cpu")


def test_a_target_drafts_by_its_own_compressed_weights() -> None:
    prompts = ["What is 2 + 3?", "Name a colour, and say why you like it."]
    plain = foretoken.load("builtin:pair", draft="none", dtype="float32").generate(prompts, max_new_tokens=30)
    for draft in COMPRESSED:
        model = foretoken.load("builtin:pair", draft=draft, length="fixed:3", dtype="float32")
        assert model.draft is not None
        assert (model.draft.path, model.draft.quantization) == (model.target.path, draft)
        drafted = model.generate(prompts, max_new_tokens=30)
        assert [one.token_ids for one in drafted] == [one.token_ids for one in plain]
        assert all(one.stats.acceptance_rate > 0.5 for one in drafted)


def test_drafting_is_exact_for_a_compressed_target() -> None:
    prompt = "Name a colour, and say why you like it."
    plain = foretoken.load("builtin:pair", draft="none", quantization="int4", dtype="float32")
    drafted = foretoken.load("builtin:pair", draft="int8", quantization="int4", length="fixed:3", dtype="float32")
    answers = [model.generate(prompt, max_new_tokens=30).token_ids for model in (plain, drafted)]
    assert answers[0] == answers[1]


def test_where_compressed_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="would be the target itself"):
        foretoken.load("builtin:pair", "int8", quantization="int8", weights=False)
    with pytest.raises(ModelError, match="unknown quantization `int5`"):
        foretoken.load("builtin:pair", quantization="int5", weights=False)


# Loading ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "foretoken" / "openvino"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A random Llama of one layer."""
    return save("llama", tmp_path_factory.mktemp("llama"), num_hidden_layers=1)


@pytest.fixture(scope="module")
def converted_once(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a conversion of it is kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        load(checkpoint)
        return store.home("openvino")


@pytest.fixture(scope="module")
def trace_of_it(checkpoint: Checkpoint) -> tuple[Any, Any]:
    """The model and its graph."""
    model = checkpoint._read(torch.float32).eval()
    return model, store.trace(model, checkpoint.max_length)


@pytest.fixture
def traced(trace_of_it: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversions take a copy of that graph: tracing takes longest, and here it counts what becomes of it on disk."""
    monkeypatch.setattr(store, "trace", lambda *_: trace_of_it[1].clone())


@pytest.fixture
def kept(converted_once: Path, here: Path) -> Path:
    """The conversion, in a cache of its own."""
    shutil.copytree(converted_once, here)
    (entry,) = entries(here)
    return entry


def save(name: str, folder: Path, **settings: Any) -> Checkpoint:
    model_type, more = FAMILIES[name]
    build(config(model_type, **(more | settings))).save_pretrained(folder)
    return Checkpoint(str(folder), "target")


def load(checkpoint: Checkpoint, dtype: str = "float32", vocab_size: int | None = None) -> Any:
    return checkpoint.load(dtype, "cpu", vocab_size, "openvino")


def forbid_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoint, "_read", lambda *_: pytest.fail("weights were read"))


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


@pytest.mark.parametrize(("dtype", "bits"), [("bfloat16", "bf16"), ("float16", "f16"), ("float32", "f32")])
def test_float32_multiplies_weights_as_they_are_stored(dtype: str, bits: str, tmp_path: Path, here: Path) -> None:
    """Exactly the same numbers, in half the bytes where 16 bits hold them."""
    model_type, settings = FAMILIES["llama"]
    build(config(model_type, **settings)).to(getattr(torch, dtype)).save_pretrained(tmp_path)
    checkpoint = Checkpoint(str(tmp_path), "target")
    model, tokens = load(checkpoint), random_tokens(4, 1, 30)
    said = vanilla(checkpoint._read(torch.float32), tokens[0])[None]
    for width in (1, 4, 20):  # graphs of their own, and the one for all sizes
        cache = model.new_cache(1)
        read_chain(model, cache, tokens[:, : 30 - width])
        keep(cache, 30 - width)
        assert error(read_chain(model, cache, tokens[:, 30 - width :]), said[:, -width:]) < CLOSE
    assert model.weight_bytes == pytest.approx(model.num_parameters * (4 if bits == "f32" else 2), rel=0.05)
    if torch.backends.cpu.get_cpu_capability() == "AVX2":  # what other processors make of it was not tried
        for graph in (model._any, *model._fixed.values()):
            nodes = [node.get_rt_info() for node in graph.compiled.get_runtime_model().get_ops()]
            products = [node for node in nodes if node["layerType"].astype(str) == "FullyConnected"]
            assert {node["runtimePrecision"].astype(str) for node in products} == {bits}


def test_a_conversion_is_made_once_for_all_types(
    checkpoint: Checkpoint, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = random_tokens(1, 1, 4)
    first = load(checkpoint)
    assert first.note is None
    (entry,) = entries(here)
    forbid_weights(monkeypatch)
    again = load(checkpoint)
    assert torch.equal(*(read_chain(model, model.new_cache(1), tokens) for model in (first, again)))
    if "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        half = load(checkpoint, "bfloat16")
        assert half.dtype == torch.bfloat16
        found = read_chain(half, half.new_cache(1), tokens)
        assert 0 < error(found, read_chain(first, first.new_cache(1), tokens)) < 0.5
    assert entries(here) == [entry]


def test_more_or_fewer_logits_than_the_embedding_has(checkpoint: Checkpoint, kept: Path) -> None:
    """For a draft that follows a target."""
    tokens = random_tokens(1, 1, 4)
    wide, narrow = load(checkpoint, vocab_size=70), load(checkpoint, vocab_size=60)
    logits = read_chain(wide, wide.new_cache(1), tokens)[0]
    assert logits.shape == (4, 70)
    assert bool((logits[:, 64:] == -torch.inf).all())
    assert bool(read_chain(wide, wide.new_cache(1), torch.tensor([[69]])).isfinite().any())
    assert torch.equal(read_chain(narrow, narrow.new_cache(1), tokens)[0], logits[:, :60])


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("damage", "name"),
    [(truncate, "model.bin"), (flip, "model.bin"), (truncate, "manifest.json"), (Path.unlink, "manifest.json")],
)
def test_a_damaged_conversion_is_made_again(
    damage: Callable[[Path], None], name: str, checkpoint: Checkpoint, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(kept / name)
    assert "converted again" in load(checkpoint).note
    assert entries(kept.parent) == [kept]
    forbid_weights(monkeypatch)
    assert load(checkpoint).note is None


@pytest.mark.usefixtures("traced")
def test_an_interrupted_conversion_leaves_nothing(
    checkpoint: Checkpoint, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        (next(here.iterdir()) / "model.xml").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.ov, "save_model", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(checkpoint)
    assert entries(here) == []
    # One that was killed could not tidy up; the next conversion does, if it has been long enough, and says so.
    killed, running = (here / f"{store.key(checkpoint)}.{name}" for name in ("killed", "running"))
    for folder in (killed, running):
        folder.mkdir()
    os.utime(killed, (0, 0))
    assert "was cut short, so it was converted again" in load(checkpoint).note
    assert entries(here) == [here / store.key(checkpoint), running]
    assert load(checkpoint).note is None


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("how", ["no room", "fills up", "is full", "no folder"])
def test_a_conversion_that_cannot_be_kept_is_used_all_the_same(
    how: str, checkpoint: Checkpoint, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        if how == "no room":
            patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
        elif how == "fills up":
            save_model = ov.save_model

            def half(graph: Any, place: Path, **options: Any) -> None:
                save_model(graph, place, **options)
                truncate(place.with_suffix(".bin"))

            patch.setattr(store.ov, "save_model", half)
        elif how == "is full":

            def full(*_: Any) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            patch.setattr(store, "save_file", full)
        else:
            here.parent.parent.write_text("a file where the folder should be")
        model = load(checkpoint)
        assert "could not be kept: " in model.note
        assert "free some space" in model.note
        if how == "is full":
            assert os.strerror(errno.ENOSPC) in model.note
        assert read_chain(model, model.new_cache(1), random_tokens(1, 1, 4)).isfinite().all()
        assert entries(here) == []
    if how != "no folder":  # once there is room, nothing is in the way
        assert load(checkpoint).note is None
        assert len(entries(here)) == 1


@pytest.mark.usefixtures("traced")
def test_what_comes_back_damaged_is_used_as_it_was_converted(
    checkpoint: Checkpoint, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def damaging(place: Path, folder: Path) -> None:
        flip(Path(place) / "model.bin")
        replace(place, folder)

    monkeypatch.setattr(os, "replace", damaging)
    model = load(checkpoint)
    assert "could not be kept: what was written is damaged" in model.note
    monkeypatch.setattr(os, "replace", replace)
    assert "converted again" in load(checkpoint).note
    assert load(checkpoint).note is None


@pytest.mark.usefixtures("traced")
def test_a_conversion_says_how_far_it_is(checkpoint: Checkpoint, here: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "foretoken"):
        load(checkpoint)
        stages = [record.getMessage().partition(": ")[0][-7:] for record in caplog.records]
        assert stages == ["1 of 4)", "2 of 4)", "3 of 4)", "4 of 4)"]
        caplog.clear()
        load(checkpoint)
        assert not caplog.records


def test_what_does_not_convert_is_refused_and_remembered(
    checkpoint: Checkpoint, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such operation\nmore")

    monkeypatch.setattr(store, "trace", fails)
    with pytest.raises(ModelError, match="`llama` models do not convert to OpenVINO: no such operation") as caught:
        load(checkpoint)
    assert "--backend torch" in str(caught.value.hint)
    monkeypatch.setattr(store, "convert", lambda *_: pytest.fail("tried again"))
    model = checkpoint.load("float32", "cpu")
    assert model.backend == "torch"
    assert "runs on torch: `llama` models do not convert" in str(model.note)


@pytest.mark.parametrize(("name", "why"), [("gemma3", "sliding windows"), ("qwen3_moe", "experts")])
def test_what_openvino_would_get_wrong_runs_on_torch(name: str, why: str, tmp_path: Path, here: Path) -> None:
    checkpoint = save(name, tmp_path / name)
    with pytest.raises(ModelError, match=why):
        load(checkpoint)
    model = checkpoint.load("float32", "cpu")
    for bits in COMPRESSED:
        smaller = Checkpoint(str(checkpoint.path), "target", quantization=bits).load("float32", "cpu")
        assert smaller.backend == model.backend == "torch"
        assert smaller.weight_bytes < 0.75 * model.weight_bytes
    assert why in str(model.note)


def test_a_conversion_that_says_something_else_is_refused(
    checkpoint: Checkpoint, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = store.OpenVINOModel.forward

    def deaf(self: Any, tokens: Any, cache: Any, places: Places | None = None, last: int = 0) -> Any:
        near = places and places._replace(positions=places.positions.clamp_max(3))
        return begin(self, tokens, cache, near, last)

    monkeypatch.setattr(store.OpenVINOModel, "forward", deaf)
    with pytest.raises(ModelError, match="what it says by itself"):
        load(checkpoint)


def test_choosing(checkpoint: Checkpoint, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkpoint.load("float32", "cpu").backend == "openvino"
    assert checkpoint.load("float32", "cpu", None, "torch").backend == "torch"
    assert "float16" in str(checkpoint.load("float16", "cpu").note)
    with pytest.raises(ModelError, match="unknown backend `openvno`") as caught:
        checkpoint.load("float32", "cpu", None, "openvno")
    assert "did you mean `openvino`" in str(caught.value.hint)
    with pytest.raises(ModelError, match="not on `meta`"):
        source.pick_backend("openvino", torch.device("meta"))
    monkeypatch.setattr(source, "find_spec", lambda _: None)
    assert checkpoint.load("float32", "cpu").backend == "torch"
    assert "pip install 'foretoken[openvino]'" in str(checkpoint.load("float32", "cpu").note)
    assert checkpoint.load("float32", "cpu", None, "torch").note is None  # whoever asks for torch knows
    with pytest.raises(ModelError, match="not installed"):
        foretoken.load("builtin:pair", backend="openvino", weights=False)


def test_the_key_is_the_content(checkpoint: Checkpoint, tmp_path: Path) -> None:
    key = store.key(checkpoint)
    copied = Path(shutil.copytree(checkpoint.path, tmp_path / "elsewhere"))
    assert store.key(Checkpoint(str(copied), "draft")) == key
    compressed = {store.key(Checkpoint(str(copied), "draft", quantization=bits)) for bits in ("none", *COMPRESSED)}
    assert len(compressed) == 3
    assert key in compressed
    settings = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(settings | {"rms_norm_eps": 0.5}))
    assert store.key(Checkpoint(str(copied), "target")) != key


def test_torch_keeps_its_threads_unless_openvino_runs_everything() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        threads.settle(["openvino", "torch"])
        assert (torch.get_num_threads(), threads.available()) == (3, 3)
        for _ in range(2):
            threads.settle(["openvino", "openvino"])
            assert (torch.get_num_threads(), threads.available()) == (1, 3)
        torch.set_num_threads(2)  # the user's word
        assert threads.available() == 2
        threads.settle(["openvino"])
        threads.settle(["torch"])
        assert (torch.get_num_threads(), threads.available()) == (2, 2)
    finally:
        torch.set_num_threads(before)
