"""The distribution a request asked for, held against `transformers`, hand tables and plain Python."""

import math
from collections import Counter
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from foretoken import sampling
from foretoken.errors import GenerationError, RequestError
from foretoken.request import Request, Sampling
from foretoken.rng import SeededRng
from foretoken.sampling import TokenCounts, distribution, warp
from foretoken.tokenizer import TextPieces
from foretoken.types import Row

V = 40


def row(
    prompt: tuple[int, ...] = (1,), output: tuple[int, ...] = (), stop: tuple[int, ...] = (), **options: Any
) -> Row:
    request = Request(prompt, Sampling(**options), stop_token_ids=frozenset(stop))
    return Row(0, request, TextPieces(lambda ids: ""), 100, [*prompt, *output])


def random_logits(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def root_law(logits: Tensor, one: Row) -> Tensor:
    """[V] float. Law of the next token of one row, given its logits [V]."""
    return distribution(logits[None, None], [one], lambda b, node: [])[0, 0]


# Against transformers ------------------------------------------------------------------------------------------------


def theirs(logits: Tensor, history: list[int], s: Sampling) -> Tensor:
    """What `transformers` makes of the same parameters."""
    steps = LogitsProcessorList()
    if s.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(s.repetition_penalty))
    if s.logit_bias:
        steps.append(SequenceBiasLogitsProcessor({(token,): bias for token, bias in s.logit_bias.items()}))
    steps.append(TemperatureLogitsWarper(s.temperature))
    if s.top_k:
        steps.append(TopKLogitsWarper(s.top_k))
    if s.top_p < 1:
        steps.append(TopPLogitsWarper(s.top_p))
    if s.min_p:
        steps.append(MinPLogitsWarper(s.min_p))
    return steps(torch.tensor([history]), logits[None])[0].softmax(-1)


@pytest.mark.parametrize("size", [V, 3000], ids=["small vocabulary", "large vocabulary"])
@pytest.mark.parametrize("temperature", [1e-4, 0.3, 1.0, 9.0])
def test_equals_transformers(size: int, temperature: float) -> None:
    logits = random_logits(size)
    bias = {2: -4.0, 5: 2.5, 7: -1e4}
    grid = product(
        (1.0, 1.3, 0.4), ({}, bias), (0, 1, 5, size, 2 * size), (1e-6, 0.2, 0.9, 0.9999, 1.0), (0.0, 0.05, 1.0)
    )
    combinations = list(grid) if size == V else list(grid)[::17]
    for penalty, biases, top_k, top_p, min_p in combinations:
        s = Sampling(penalty, 0.0, 0.0, biases, (), temperature, top_k, top_p, min_p)
        one = Row(0, Request((3, 5), s), TextPieces(lambda ids: ""), 100, [3, 5, 8, 8])
        mine, want = root_law(logits, one), theirs(logits, one.tokens, s)
        assert torch.equal(mine > 0, want > 0), s
        torch.testing.assert_close(mine, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_stays(dtype: torch.dtype) -> None:
    logits = random_logits(1, 2, V, dtype=dtype)
    for options in ({}, {"temperature": 0.7, "top_k": 9, "top_p": 0.9, "min_p": 0.1}, {"presence_penalty": 1.0}):
        law = distribution(logits, [row(**options)], lambda b, node: [3])
        assert law.dtype == dtype
        torch.testing.assert_close(law.sum(-1), torch.ones(1, 2, dtype=dtype))


# Edges of the parameters ---------------------------------------------------------------------------------------------


def test_greedy_is_a_point_mass_on_the_first_of_the_most_likely() -> None:
    assert warp(torch.tensor([1.0, 3.0, 3.0, -torch.inf]), 0).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("temperature", [1e-4, 1e-30, 1e-45, 1e30])
@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.5}])
def test_extreme_temperatures_give_no_overflow(temperature: float, options: dict[str, Any]) -> None:
    logits = torch.tensor([-1e4, 2e4, 1.9e4, -torch.inf])
    law = warp(logits, temperature, **options)
    assert law.isfinite().all()
    assert law.sum() == pytest.approx(1)
    assert law[3] == 0
    if temperature < 1:
        assert law.tolist() == [0, 1, 0, 0]


def test_one_token_left() -> None:
    logits = torch.full((V,), -torch.inf)
    logits[7] = -50.0
    want = torch.zeros(V)
    want[7] = 1
    for options in ({}, {"top_k": 5}, {"top_p": 0.5}, {"min_p": 1.0}, {"top_k": 2, "top_p": 0.1, "min_p": 0.9}):
        for temperature in (0, 1e-4, 1, 100):
            assert torch.equal(warp(logits, temperature, **options), want)


def test_tight_filters_keep_the_most_likely_token_alone() -> None:
    logits = random_logits(V)
    for options in ({"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}):
        law = warp(logits, 1.0, **options)
        assert law.argmax() == logits.argmax()
        assert law.max() == 1


def test_loose_filters_keep_everything() -> None:
    logits = random_logits(V)
    for options in ({"top_k": V}, {"top_k": V + 1}, {"top_p": 1.0}, {"min_p": 0.0}):
        assert torch.equal(warp(logits, 1.0, **options), warp(logits, 1.0))


def test_ties() -> None:
    level = torch.zeros(4)
    assert warp(level, 1.0, top_p=0.5).tolist() == [0.5, 0.5, 0, 0]  # the smallest set, lower ids first
    assert warp(level, 1.0, top_p=0.51).tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    assert warp(level, 1.0, top_p=1e-9).tolist() == [1, 0, 0, 0]
    assert warp(level, 1.0, top_k=2).tolist() == [0.25] * 4  # as in transformers, equals of the last one stay
    assert warp(level, 1.0, min_p=1.0).tolist() == [0.25] * 4


@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.7, 0.95, 0.999999])
def test_top_p_does_not_depend_on_how_much_was_sorted(top_p: float, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = random_logits(6, 300).mul(2).round().div(2)  # with ties
    logits[::2] /= 8  # some rows reach top_p early, some late
    whole = warp(logits, 1.0, top_p=top_p)
    order = logits.sort(dim=-1, descending=True, stable=True).indices
    for law, ids, probs in zip(whole, order.tolist(), logits.softmax(-1), strict=True):
        kept, mass = set(), 0.0
        for token in ids:
            if mass < top_p:
                kept.add(token)
            mass += float(probs[token])
        assert set(law.nonzero().flatten().tolist()) == kept
    for head in (1, 2, 20, 299):
        monkeypatch.setattr(sampling, "HEAD", head)
        assert torch.equal(warp(logits, 1.0, top_p=top_p), whole)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf], ids=["nan", "inf"])
@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 1.0}, {"temperature": 0.5, "top_k": 5}, {"temperature": 1.0, "top_p": 0.5, "min_p": 0.1}],
)
def test_numbers_that_are_none_end_in_a_clear_error(bad: float, options: dict[str, Any]) -> None:
    logits = random_logits(V, dtype=torch.float32)
    logits[11] = bad
    one = row(**options)
    with pytest.raises(GenerationError, match="no usable probabilities") as caught:
        SeededRng([one], "accept").pick(root_law(logits, one)[None], [True])
    assert "float32" in str(caught.value.hint)


def test_everything_forbidden_ends_in_a_clear_error() -> None:
    for temperature in (0.0, 1.0):
        one = row(temperature=temperature, logit_bias=dict.fromkeys(range(V), -math.inf))
        law = root_law(random_logits(V), one)
        with pytest.raises(GenerationError):
            SeededRng([one], "accept").pick(law[None], [True])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.inf),
        ("presence_penalty", math.nan),
        ("frequency_penalty", math.inf),
        ("logit_bias", {1: math.inf}),
        ("logit_bias", {1: math.nan}),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("min_p", 1.1),
    ],
)
def test_parameters_out_of_range_are_refused(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=f"{name} cannot be") as caught:
        Sampling(**{name: value})
    assert caught.value.hint


# Penalties, bias and processors --------------------------------------------------------------------------------------


def plain_edit(logits: Tensor, s: Sampling, prompt: list[int], output: list[int]) -> list[float]:
    """Penalties and bias in plain Python."""
    edited = []
    for token, x in enumerate(logits.tolist()):
        if token in prompt or token in output:
            x = x / s.repetition_penalty if x > 0 else x * s.repetition_penalty
        times = Counter(output)[token]
        edited.append(x - s.presence_penalty * (times > 0) - s.frequency_penalty * times + s.logit_bias.get(token, 0))
    return edited


PENALTIES = {
    "repetition_penalty": 1.7,
    "presence_penalty": 0.6,
    "frequency_penalty": 0.3,
    "logit_bias": {3: 1.5, 9: -2.0},
}


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("without", [None, *PENALTIES])
def test_penalties_follow_each_nodes_own_path(temperature: float, without: str | None) -> None:
    options = {name: value for name, value in PENALTIES.items() if name != without}
    one = row((1, 2, 2), (5, 6, 5), temperature=temperature, **options)
    paths = [[], [5], [5, 7], [8, 8, 8]]
    logits = random_logits(1, len(paths), V)
    law = distribution(logits, [one], lambda b, node: paths[node])
    for node, path in enumerate(paths):
        edited = plain_edit(logits[0, node], one.request.sampling, [1, 2, 2], [5, 6, 5, *path])
        want = warp(torch.tensor(edited, dtype=torch.float64), temperature)
        torch.testing.assert_close(law[0, node], want, rtol=1e-12, atol=0)


def test_presence_and_frequency_count_the_output_alone_and_repetition_the_prompt_too() -> None:
    logits = torch.ones(4, dtype=torch.float64)
    said = row((0,), (1, 1))
    for options, edited in (
        ({"repetition_penalty": 2.0}, [0.5, 0.5, 1, 1]),
        ({"presence_penalty": 0.25}, [1, 0.75, 1, 1]),
        ({"frequency_penalty": 0.25}, [1, 0.5, 1, 1]),
    ):
        said = row((0,), (1, 1), temperature=1.0, **options)
        torch.testing.assert_close(root_law(logits, said), torch.tensor(edited).double().softmax(-1))


def test_counts_stay_right_over_commits() -> None:
    draw = torch.Generator().manual_seed(3)
    prompt = (4, 4, 9)
    one = row(prompt, temperature=1.0, **PENALTIES)
    for step in range(12):
        for path in ([], [7], [7, 7, 4]):  # the draft and then the target look at paths that do not happen
            logits = random_logits(V, seed=step)
            law = distribution(logits[None, None], [one], lambda b, node, path=path: path)[0, 0]
            edited = plain_edit(logits, one.request.sampling, list(prompt), [*one.output, *path])
            torch.testing.assert_close(law, warp(torch.tensor(edited, dtype=torch.float64), 1.0))
        one.tokens += torch.randint(V, (step % 4,), generator=draw).tolist()
    counts = one.memory[TokenCounts, V].update(one)
    assert {i: int(n) for i, n in enumerate(counts.output.tolist()) if n} == Counter(one.output)
    assert set(counts.seen.nonzero().flatten().tolist()) == set(one.tokens)


def test_processors_of_transformers_work_as_they_are() -> None:
    logits = random_logits(1, 2, V)
    processors = (SuppressTokensLogitsProcessor([0, 3]), NoRepeatNGramLogitsProcessor(2))
    one = row((1, 2), (6, 1), temperature=1.0, processors=processors)
    paths: list[list[int]] = [[], [2, 6]]
    law = distribution(logits, [one], lambda b, node: paths[node])
    assert law[0, 0, [0, 3]].tolist() == law[0, 1, [0, 3]].tolist() == [0, 0]
    assert law[0, 0, 2] == 0  # 1 2 was said
    assert law[0, 1, 1] == 0  # 6 1 was said
    assert law[0, 1, 2] > 0


def test_processors_see_their_nodes_history_and_nothing_of_padding_or_after_a_stop_token() -> None:
    calls: list[list[int]] = []

    def record(input_ids: Tensor, scores: Tensor) -> Tensor:
        assert input_ids.dtype == torch.int64
        assert input_ids.shape[0] == scores.shape[0] == 1
        calls.extend(input_ids.tolist())
        return scores

    paths: list[list[int] | None] = [[], [5], [0], [0, 5], [5, 6], None]
    one = row((1, 2), (3,), stop=(0,), processors=(record,))
    distribution(random_logits(1, 6, V), [one], lambda b, node: paths[node])
    assert calls == [[1, 2, 3], [1, 2, 3, 5], [1, 2, 3, 5, 6]]


def test_processors_run_in_order_after_penalties_and_before_temperature() -> None:
    def add(input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores + torch.tensor([0.0, 2.0])

    def double(input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores * 2

    one = row((0,), temperature=0.5, logit_bias={1: 1.0}, processors=(add, double))
    torch.testing.assert_close(root_law(torch.tensor([0.0, 0.0]), one), torch.tensor([0.0, 12.0]).softmax(-1))


def test_paths_are_looked_up_only_where_they_matter() -> None:
    def unneeded(b: int, node: int) -> list[int]:
        assert b == 1
        return []

    distribution(random_logits(2, 1, V), [row(temperature=0.5), row(presence_penalty=0.1)], unneeded)


def test_temperature_of_the_draft_replaces_the_requests_own() -> None:
    logits = random_logits(1, 1, V)
    law = distribution(logits, [row(temperature=0.0, top_k=3)], lambda b, node: [], 2.0)
    torch.testing.assert_close(law, warp(logits, 2.0, top_k=3))


# Batches -------------------------------------------------------------------------------------------------------------


def test_rows_of_a_mixed_batch_equal_each_row_alone_bit_for_bit() -> None:
    choices: list[dict[str, Any]] = [
        {},
        {"temperature": 0.7, "top_p": 0.9},
        {"temperature": 1.0, "min_p": 0.05, **PENALTIES},
        {"temperature": 0.7, "top_p": 0.9, "presence_penalty": 1.0},
        {"temperature": 50.0, "top_p": 0.99},
        {"temperature": 1.3, "top_k": 20},
        {},
    ]
    rows = [row((b,), (b + 1, 3), **options) for b, options in enumerate(choices)]
    logits = random_logits(len(rows), 3, 3000, dtype=torch.float32)
    together = distribution(logits, rows, lambda b, node: [b] * node)
    for b, one in enumerate(rows):
        one.memory.clear()
        alone = distribution(logits[b : b + 1], [one], lambda _, node, b=b: [b] * node)
        assert torch.equal(alone[0], together[b])


def test_logits_are_not_modified() -> None:
    def in_place(input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.fill_(1.0)

    options: list[dict[str, Any]] = [
        {},
        {"temperature": 0.5, "top_k": 3, "top_p": 0.5, "min_p": 0.2},
        {"temperature": 1.0, **PENALTIES},
        {"processors": (in_place,)},
    ]
    for rows in ([row(**o) for o in options], *([row(**o)] for o in options)):
        logits = random_logits(len(rows), 2, V)
        before = logits.clone()
        distribution(logits, rows, lambda b, node: [3])
        assert torch.equal(logits, before)
