"""Data, loss, training and files of the acceptance head (SpecDec++)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import foretoken
from foretoken.errors import ConfigError, ModelError
from foretoken.models.acceptance_head import AcceptanceHead, HeadShape
from foretoken.sampling import warp
from foretoken.train.acceptance_data import Example, features, mixed, read_once
from foretoken.train.acceptance_head import Recipe, fit_glance, train
from foretoken.train.fitting import unweighted, weighted_loss
from foretoken.types import Scores

PROMPTS = [f"What is {a} plus {a + 3}?" for a in range(30)]
RECIPE = Recipe(max_new_tokens=6, epochs=2, batch=32)
OWN = [0.1, 0.5, 0.6, 0.9]
EXAMPLE = Example(
    0.7, [9, 8], [1, 2, 3, 4], [5, 6, 7, 8], [0.0] * 4, [0.0] * 4, [0.1, 0.2, 0.3, 0.4], [math.log(p) for p in OWN]
)


class Echo:
    """A model whose state at a position is the token it has just read."""

    def new_cache(self, rows: int) -> None:
        return None

    def forward(self, tokens: torch.Tensor, *_: object) -> Scores:
        return Scores(tokens[..., None].float(), tokens[..., None].float())


@pytest.fixture(scope="module")
def llm() -> foretoken.LLM:
    return foretoken.load(dtype="float32", backend="torch")


@pytest.fixture(scope="module")
def whole(llm: foretoken.LLM, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AcceptanceHead]:
    """A training that nothing interrupted: its work folder and what it made."""
    folder: Path = tmp_path_factory.mktemp("head")
    return folder, train(llm, PROMPTS, RECIPE, folder)


def test_no_mix_gives_draft_tokens_and_full_supervision_and_the_reverse() -> None:
    assert mixed(EXAMPLE, 0.0, np.random.default_rng(0)) == ([9, 8, 5, 6, 7, 8], [2, 3, 4, 5])
    assert mixed(EXAMPLE, 1.0, np.random.default_rng(0)) == ([9, 8, 1, 2, 3, 4], [])


def test_mix_is_the_share_of_target_tokens() -> None:
    long = Example(0.0, [0], [1] * 4000, [2] * 4000, *[[0.0] * 4000] * 4)
    tokens, places = mixed(long, 0.15, np.random.default_rng(0))
    assert tokens.count(1) / 4000 == pytest.approx(0.15, abs=0.02)
    assert len(places) == tokens.count(2)


def test_a_label_belongs_to_the_state_that_has_read_its_token() -> None:
    states, labels = features(Echo(), [EXAMPLE], 0.0, [0])  # type: ignore[arg-type]
    assert states[:, 0].tolist() == EXAMPLE.draft
    assert torch.sigmoid(states[:, 1]).tolist() == pytest.approx(OWN)
    assert states[:, 2].tolist() == pytest.approx([0.7] * 4)
    assert labels.tolist() == pytest.approx(EXAMPLE.labels)


@pytest.mark.parametrize("weight", [1.0, 6.0])
def test_the_weighted_loss_has_the_closed_form_minimum(weight: float) -> None:
    labels = torch.tensor([0.2, 0.9])
    logit = torch.zeros(2, requires_grad=True)
    solver = torch.optim.LBFGS([logit], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        loss = weighted_loss(logit, labels, weight)
        loss.backward()
        return loss

    solver.step(closure)
    found = torch.sigmoid(logit.detach())
    torch.testing.assert_close(found, labels / (labels + weight * (1 - labels)), atol=1e-4, rtol=0)
    torch.testing.assert_close(unweighted(found, weight), labels, atol=1e-4, rtol=0)


def test_labels_and_own_probabilities_belong_to_their_positions(
    llm: foretoken.LLM, whole: tuple[Path, AcceptanceHead]
) -> None:
    for file, temperature in (("examples-0.jsonl", 0.0), ("examples-1.jsonl", 1.0)):
        example = Example(**json.loads((whole[0] / file).read_text().splitlines()[0]))
        assert example.temperature == temperature
        for at, token in enumerate(example.draft):
            context = [*example.prompt, *example.target[:at]]
            logits = [read_once(model, context).logits[0, -1] for model in llm.models if model]
            p, q = (warp(of, temperature)[token] for of in logits)
            assert example.labels[at] == pytest.approx(min(1.0, (p / q).item()), rel=1e-3)
            assert example.log_own[at] == pytest.approx(logits[1].log_softmax(-1)[token].item(), abs=1e-3)


def test_sampling_goes_on_after_a_torn_line(
    llm: foretoken.LLM, whole: tuple[Path, AcceptanceHead], tmp_path: Path
) -> None:
    folder, head = whole
    assert [one["temperature"] for one in head.card["by_temperature"]] == [0.0, 1.0]
    assert head.card["num_examples"] == 30
    # Killed while sampling: a torn last line, and a group that was not finished.
    torn = tmp_path / "torn"
    torn.mkdir()
    for file in ("examples-0.jsonl", "examples-1.jsonl"):
        (torn / file).write_text((folder / file).read_text())
    lines = (torn / "examples-1.jsonl").read_text().splitlines(keepends=True)
    (torn / "examples-1.jsonl").write_text("".join(lines[:3]) + lines[3][:40])
    again = train(llm, PROMPTS, RECIPE, torn)
    assert again.card == head.card
    for name, value in head.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_a_work_folder_belongs_to_one_training(llm: foretoken.LLM, whole: tuple[Path, AcceptanceHead]) -> None:
    with pytest.raises(ConfigError, match="holds another training"):
        train(llm, PROMPTS, Recipe(max_new_tokens=7), whole[0])


def test_what_cannot_be_trained_is_refused(llm: foretoken.LLM, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too few"):
        train(llm, PROMPTS[:5], RECIPE, tmp_path)
    with pytest.raises(ConfigError, match="belongs to a draft"):
        train(foretoken.load(draft="none", weights=False), PROMPTS, RECIPE, tmp_path)
    for bad in ({"mix": 1.0}, {"dropout": 1.0}, {"depth": -1}, {"temperatures": ()}):
        with pytest.raises(ConfigError):
            Recipe(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(("tied", "blocks"), [(True, 1), (False, 3)])
def test_tied_blocks_share_weights(tied: bool, blocks: int) -> None:
    head = AcceptanceHead(HeadShape(8, depth=3, tied=tied))
    assert len(head.blocks) == blocks
    assert head(torch.randn(2, 5, 10)).shape == (2, 5)
    assert AcceptanceHead(HeadShape(8, depth=0))(torch.randn(10)).shape == ()


def seen(count: int, size: int = 8, seed: int = 0) -> torch.Tensor:
    """Features of random tokens, half of them at temperature 0."""
    rng = torch.Generator().manual_seed(seed)
    hidden, prob = torch.randn(count, size, generator=rng) * 9 + 4, torch.rand(count, generator=rng)
    return AcceptanceHead.describe(hidden, prob, (torch.arange(count) % 2).float())


def test_probability_and_temperature_are_kept_in_bounds() -> None:
    features = AcceptanceHead.describe(torch.zeros(2, 8), torch.tensor([0.0, 1.0]), torch.tensor([0.0, 9.0]))
    assert torch.sigmoid(features[:, -2]).tolist() == pytest.approx([1e-4, 1 - 1e-4])
    assert features[:, -1].tolist() == [0, 2]


def test_a_head_that_has_learnt_nothing_repeats_the_draft() -> None:
    head = AcceptanceHead(HeadShape(8, depth=2))
    prob = torch.tensor([0.2, 0.9])
    torch.testing.assert_close(head(head.describe(torch.randn(2, 8), prob, torch.zeros(2))), prob)
    assert [head.glance(p, 0.0) for p in (0.2, 0.9)] == pytest.approx([0.2, 0.9])


@pytest.mark.parametrize("shape", [HeadShape(8, depth=0), HeadShape(8, depth=2), HeadShape(8, depth=3, tied=True)])
@torch.inference_mode()
def test_judging_tokens_is_calling_the_head(shape: HeadShape) -> None:
    torch.manual_seed(0)
    head = AcceptanceHead(shape).eval()
    head.standardize(seen(50))
    for weight in (*head.parameters(), head.scale, head.shift):
        weight.copy_(torch.randn_like(weight) / 3)
    probs, heats, hidden = (0.0, 0.3, 0.9, 1.0), (0.0, 0.7, 1.0, 9.0), torch.randn(4, 8) * 9 + 4
    features = head.describe(hidden, torch.tensor(probs), torch.tensor(heats))
    read = head.read(hidden)
    assert head.judge(read, probs, heats) == pytest.approx(head(features).tolist(), abs=1e-5)
    assert torch.equal(head.read(hidden.reshape(2, 2, 8)), read.reshape(2, 2, 2))
    assert head.judge(read[2:3], probs[2:3], heats[2:3]) == pytest.approx(head(features[2:3]).tolist(), abs=1e-5)
    half = hidden.bfloat16()
    features = head.describe(half, torch.tensor(probs), torch.tensor(heats))
    assert head.judge(head.read(half), probs, heats) == pytest.approx(head(features).tolist(), abs=1e-5)
    look = torch.sigmoid(head.glance_logit(features)).tolist()
    assert [head.glance(*one) for one in zip(probs, heats, strict=True)] == pytest.approx(look, abs=1e-5)


def test_log_odds_beyond_all_bounds_are_certain() -> None:
    head = AcceptanceHead(HeadShape(8))
    assert head.chances([-1e9, 0.0, 1e9]) == [0.0, 0.5, 1.0]


def test_the_state_is_standardized_on_what_was_measured() -> None:
    features = seen(200)
    head = AcceptanceHead(HeadShape(8, depth=0))
    head.standardize(features)
    torch.nn.init.zeros_(head.out.weight)
    for column in range(8):  # a probe that reads one column of the state says its standard score
        with torch.no_grad():
            head.out.weight[0] = torch.eye(10)[column]
        score = head.logit(features).detach()
        torch.testing.assert_close(score.mean().item(), 0.0, atol=1e-5, rtol=0)
        torch.testing.assert_close(score.std().item(), 1.0)


def test_the_glance_finds_how_acceptance_depends_on_probability_and_temperature() -> None:
    features = seen(20000)
    prob, heat = torch.sigmoid(features[:, -2]), features[:, -1]
    chance = torch.where(heat > 0, 0.4 + 0.3 * prob, prob**2)
    head = AcceptanceHead(HeadShape(8))
    fit_glance(head, features, chance)
    glance = torch.sigmoid(head.glance_logit(features))
    assert (glance - chance).abs().max() < 0.05
    torch.testing.assert_close(head(features), glance, atol=1e-4, rtol=0)  # where training starts


def test_the_shipped_head_is_calibrated_and_better_than_the_glance(llm: foretoken.LLM) -> None:
    card = llm.using(length="specdec++")._length._head.card  # type: ignore[attr-defined]
    assert card["calibration_error"] < 0.03
    assert card["divergence"] < card["glance"]["divergence"] < 0.8 * card["divergence_of_mean"]
    assert card["recipe"] == {**card["recipe"], "temperatures": [0.0, 1.0]}


def test_a_head_survives_its_file_and_refuses_another_draft(tmp_path: Path) -> None:
    head = AcceptanceHead(HeadShape(8, depth=2), "this draft", {"note": "made here"})
    head.shift.fill_(0.3)
    path = tmp_path / "head.safetensors"
    head.save(path)
    again = AcceptanceHead.load(path, "this draft")
    states = seen(5)
    assert torch.equal(again(states), head(states))
    assert again.card == {"note": "made here"}
    with pytest.raises(ModelError, match="another draft") as other:
        AcceptanceHead.load(path, "that draft")
    assert other.value.hint
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ModelError, match="no acceptance head"):
        AcceptanceHead.load(path, "this draft")
    with pytest.raises(ModelError, match="there is no acceptance head"):
        AcceptanceHead.load(tmp_path / "none.safetensors", "this draft")
