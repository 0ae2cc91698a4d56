"""What `adapt` accepts and refuses, and what an adapted model returns."""

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from foretoken.errors import ModelError
from foretoken.models import hf
from foretoken.models.base import Places
from foretoken.models.hf import HFModel, TreeMask, adapt
from foretoken.models.source import Checkpoint

from .drive import error, keep, random_tokens, read_chain, vanilla
from .families import MAX_LENGTH, VOCAB, WINDOW, build, config

# Why they cannot be steered is never visible in their first few tokens alone.
UNSTEERABLE: dict[str, tuple[str, dict[str, Any]]] = {
    "adds a mask of its own": ("doge", {"keep_window_size": 64}),
    "has a mask baked in": ("gpt_neo", {"num_layers": 2, "attention_types": [[["global", "local"], 1]]}),
    "never hands its window down": ("phimoe", {"sliding_window": 4 * WINDOW}),
    "biases attention by slot": ("falcon", {"alibi": True}),
    "counts positions by itself": ("bart", {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4}),
    "sees what comes later": ("bert", {}),
    "has chunks": ("llama4_text", {"attention_chunk_size": WINDOW, "intermediate_size_mlp": 48}),
    "has a state": ("mamba", {"state_size": 4, "num_hidden_layers": 2}),
    "has convolutions": ("lfm2", {"layer_types": ["conv", "full_attention"]}),
}


def llama(**settings: Any) -> PreTrainedModel:
    return build(config("llama", **settings))


@pytest.mark.parametrize("reason", UNSTEERABLE)
def test_models_that_cannot_be_steered_are_refused_by_name(reason: str) -> None:
    model_type, settings = UNSTEERABLE[reason]
    with pytest.raises(ModelError, match=f"`{model_type}`") as caught:
        adapt(build(config(model_type, **settings)), MAX_LENGTH)
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_a_window_as_long_as_the_context_is_no_window() -> None:
    assert adapt(build(config("phimoe", sliding_window=MAX_LENGTH)), MAX_LENGTH).own_attention


def test_the_cache_may_go_by_either_of_its_names() -> None:
    """The library renamed it; code that comes with a checkpoint keeps the name it was written with."""
    model = llama()
    inner, real = model.forward, hf.cache_argument(model.forward)
    (other,) = set(hf.CACHE_ARGUMENTS) - {real}

    def forward(**given: Any) -> Any:
        given[str(real)] = given.pop(other, None)
        return inner(**given)

    named = [Parameter(other, Parameter.KEYWORD_ONLY, default=None), Parameter("given", Parameter.VAR_KEYWORD)]
    forward.__signature__ = Signature(named)  # type: ignore[attr-defined]
    model.forward = forward
    assert hf.cache_argument(model.forward) == other
    assert adapt(model, MAX_LENGTH).own_attention
    assert hf.cache_argument(lambda tokens: tokens) is None


BREAK: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "mask": lambda patch: patch.setattr(
        TreeMask, "dense", lambda self, window=None: torch.zeros(1, 1, self._mask.shape[1], self._total)
    ),
    "positions": lambda patch: patch.setattr(
        hf.HFModel,
        "_read",
        lambda self, tokens, positions, *rest, read=hf.HFModel._read: read(self, tokens, positions.clamp_min(2), *rest),
    ),
    "commit": lambda patch: patch.setattr(
        hf.TensorCache,
        "commit",
        lambda self, nodes, counts, commit=hf.TensorCache.commit: commit(self, torch.arange(4)[None], counts),
    ),
}


@pytest.mark.parametrize("what", BREAK)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("role", ["target", "draft"])
def test_the_check_has_power_on_a_trained_model(
    what: str, dtype: str, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint("builtin:pair", role)
    checkpoint.load(dtype, backend="torch")
    BREAK[what](monkeypatch)
    with pytest.raises(ModelError, match="cannot steer the attention of `llama`"):
        checkpoint.load(dtype, backend="torch")


@pytest.mark.parametrize("model_type", ["llama", "qwen3_moe", "gemma2", "gpt_oss", "falcon"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_is_no_reason_to_refuse(model_type: str, dtype: torch.dtype) -> None:
    adapt(build(config(model_type)).to(dtype), MAX_LENGTH)


def test_a_half_precision_overflow_is_named() -> None:
    model = llama()
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(1e30)
        model.model.norm.weight.fill_(float("inf"))
    with pytest.raises(ModelError, match="no usable numbers") as caught:
        adapt(model, MAX_LENGTH)
    assert "float32" in str(caught.value.hint)


def test_memory_running_out_is_not_mistaken_for_a_misfit(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(HFModel, "_read", exhausted)
    with pytest.raises(torch.OutOfMemoryError):
        adapt(llama(), MAX_LENGTH)


def read(model: HFModel, tokens: Tensor, last: int = 0) -> Tensor:
    return read_chain(model, model.new_cache(len(tokens)), tokens, last)


def test_the_vocabulary_is_what_the_model_returns() -> None:
    model = llama()
    model.resize_token_embeddings(VOCAB + 8)
    model.config.vocab_size = VOCAB  # a padded embedding, as some checkpoints have
    ours = adapt(model, MAX_LENGTH)
    assert ours.vocab_size == VOCAB + 8
    assert read(ours, random_tokens(1, 1, 3)).shape == (1, 3, VOCAB + 8)


def test_a_draft_is_cut_to_its_targets_vocabulary() -> None:
    tokens = random_tokens(1, 1, 3)
    expected = read(adapt(llama(), MAX_LENGTH), tokens)
    assert torch.equal(read(adapt(llama(), MAX_LENGTH, VOCAB - 10), tokens), expected[..., : VOCAB - 10])


def test_a_draft_is_filled_up_to_its_targets_vocabulary() -> None:
    ours = adapt(llama(), MAX_LENGTH, VOCAB + 10)
    tokens = random_tokens(1, 1, 3)
    tokens[0, 1] = VOCAB + 9  # the target's own; the draft must survive it
    found = read(ours, tokens)
    assert found.shape[-1] == ours.vocab_size == VOCAB + 10
    assert bool((found[..., VOCAB:] == -torch.inf).all())
    assert bool(found[..., :VOCAB].isfinite().all())


@pytest.mark.parametrize("model_type", ["llama", "opt", "falcon"])
def test_hidden_states_are_what_the_output_embedding_read(model_type: str) -> None:
    model = build(config(model_type))
    ours = adapt(model, MAX_LENGTH)
    cache, tokens = ours.new_cache(2), random_tokens(2, 2, 5)
    scores = ours.forward(tokens, cache)
    assert scores.hidden is not None
    assert scores.hidden.shape == (2, 5, 32)
    with torch.no_grad():
        assert error(model.get_output_embeddings()(scores.hidden), scores.logits) < 1e-5
    last = ours.forward(tokens, ours.new_cache(2), last=2)
    assert last.hidden is not None
    assert error(last.logits, scores.logits[:, -2:]) < 1e-5
    assert error(last.hidden, scores.hidden[:, -2:]) < 1e-5


def test_nothing_is_left_on_the_model_between_forwards() -> None:
    ours = adapt(llama(), MAX_LENGTH)
    before = {name: set(vars(module)) for name, module in ours.model.named_modules()}
    read(ours, random_tokens(3, 1, 4))
    assert {name: set(vars(module)) for name, module in ours.model.named_modules()} == before
    assert not ours.model.get_output_embeddings()._forward_pre_hooks


def test_two_caches_of_one_model_do_not_meet() -> None:
    model = llama()
    ours, texts = adapt(llama(), MAX_LENGTH), [random_tokens(4, 9), random_tokens(5, 9)]
    caches = [ours.new_cache(1), ours.new_cache(1)]
    for at in range(9):
        for cache, text in zip(caches, texts, strict=True):
            found = read_chain(ours, cache, text[None, at : at + 1])
            keep(cache, 1)
            assert error(found[0, 0], vanilla(model, text[: at + 1])[-1]) < 1e-4


def test_a_token_that_sees_nothing_does_not_poison_the_others() -> None:
    model = llama()
    ours = adapt(llama(), MAX_LENGTH)
    cache, tokens = ours.new_cache(1), random_tokens(6, 4)
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    mask[:, 0] = False  # the first token is padding
    positions = torch.tensor([[0, 0, 1, 2]])
    found = ours.forward(tokens[None], cache, Places(positions, mask[None])).logits[0]
    assert error(found[1:], vanilla(model, tokens[1:])) < 1e-4
