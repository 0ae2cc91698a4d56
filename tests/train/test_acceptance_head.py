"""Data, loss, training and files of the acceptance head (SpecDec++)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import foretoken
from foretoken.errors import ConfigError, ModelError
from foretoken.models.acceptance_head import AcceptanceHead, HeadShape
from foretoken.sampling import warp
from foretoken.train.acceptance_data import Example, features, mixed, read_once
from foretoken.train.acceptance_head import Recipe, train
from foretoken.train.fitting import unweighted, weighted_loss
from foretoken.types import Scores

PROMPTS = [f"What is {a} plus {a + 3}?" for a in range(30)]
RECIPE = Recipe(max_new_tokens=6, temperature=1.0, epochs=2, batch=32, depth=1)
EXAMPLE = Example([9, 8], [1, 2, 3, 4], [5, 6, 7, 8], [0.0] * 4, [0.0] * 4, [0.1, 0.2, 0.3, 0.4])


class Echo:
    """A model whose state at a position is the token it has just read."""

    def new_cache(self, rows: int) -> None:
        return None

    def forward(self, tokens: torch.Tensor, *_: object) -> Scores:
        return Scores(tokens[..., None].float(), tokens[..., None].float())


@pytest.fixture(scope="module")
def llm() -> foretoken.LLM:
    return foretoken.load(dtype="float32", backend="torch")


def test_no_mix_gives_draft_tokens_and_full_supervision_and_the_reverse() -> None:
    assert mixed(EXAMPLE, 0.0, np.random.default_rng(0)) == ([9, 8, 5, 6, 7, 8], [2, 3, 4, 5])
    assert mixed(EXAMPLE, 1.0, np.random.default_rng(0)) == ([9, 8, 1, 2, 3, 4], [])


def test_mix_is_the_share_of_target_tokens() -> None:
    long = Example([0], [1] * 4000, [2] * 4000, [0.0] * 4000, [0.0] * 4000, [0.0] * 4000)
    tokens, places = mixed(long, 0.15, np.random.default_rng(0))
    assert tokens.count(1) / 4000 == pytest.approx(0.15, abs=0.02)
    assert len(places) == tokens.count(2)


def test_a_label_belongs_to_the_state_that_has_read_its_token() -> None:
    states, labels = features(Echo(), [EXAMPLE], 0.0, [0])  # type: ignore[arg-type]
    assert states[:, 0].tolist() == EXAMPLE.draft
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


def test_labels_are_the_acceptance_probability_at_the_right_position(llm: foretoken.LLM, tmp_path: Path) -> None:
    train(llm, PROMPTS, RECIPE, tmp_path)
    example = Example(**__import__("json").loads((tmp_path / "examples.jsonl").read_text().splitlines()[0]))
    for at in range(len(example.target)):
        context = [*example.prompt, *example.target[:at]]
        p, q = (warp(read_once(model, context).logits[0, -1], 1.0) for model in llm.models if model)
        token = example.draft[at]
        assert example.labels[at] == pytest.approx(min(1.0, (p[token] / q[token]).item()), rel=1e-3)


def test_training_is_reproducible_and_resumes_after_any_interruption(llm: foretoken.LLM, tmp_path: Path) -> None:
    whole = train(llm, PROMPTS, RECIPE, tmp_path / "whole")
    # Killed while sampling: a torn last line, and a group that was not finished.
    torn = tmp_path / "torn"
    train(llm, PROMPTS, RECIPE, torn)
    lines = (torn / "examples.jsonl").read_text().splitlines(keepends=True)
    (torn / "examples.jsonl").write_text("".join(lines[:17]) + lines[17][:40])
    (torn / "epoch-0.pt").unlink()
    (torn / "epoch-1.pt").unlink()
    # Killed between epochs, with a broken checkpoint left behind.
    late = tmp_path / "late"
    train(llm, PROMPTS, RECIPE, late)
    (late / "epoch-1.pt").write_bytes(b"broken")
    for folder in (torn, late):
        again = train(llm, PROMPTS, RECIPE, folder)
        assert again.card == whole.card
        for name, value in whole.state_dict().items():
            assert torch.equal(again.state_dict()[name], value), name


def test_a_work_folder_belongs_to_one_training(llm: foretoken.LLM, tmp_path: Path) -> None:
    train(llm, PROMPTS, RECIPE, tmp_path)
    with pytest.raises(ConfigError, match="holds another training"):
        train(llm, PROMPTS, Recipe(max_new_tokens=7), tmp_path)


def test_what_cannot_be_trained_is_refused(llm: foretoken.LLM, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too few"):
        train(llm, PROMPTS[:5], RECIPE, tmp_path)
    with pytest.raises(ConfigError, match="belongs to a draft"):
        train(foretoken.load(draft="none", weights=False), PROMPTS, RECIPE, tmp_path)
    with pytest.raises(ConfigError, match="mix"):
        Recipe(mix=1.0)


@pytest.mark.parametrize(("tied", "blocks"), [(True, 1), (False, 3)])
def test_tied_blocks_share_weights(tied: bool, blocks: int) -> None:
    head = AcceptanceHead(HeadShape(8, depth=3, tied=tied))
    assert len(head.blocks) == blocks
    assert head(torch.randn(2, 5, 8)).shape == (2, 5)
    assert AcceptanceHead(HeadShape(8, depth=0))(torch.randn(8)).shape == ()


def test_a_head_survives_its_file_and_refuses_another_draft(tmp_path: Path) -> None:
    head = AcceptanceHead(HeadShape(8, depth=2), "this draft", {"note": "made here"})
    head.shift.fill_(0.3)
    path = tmp_path / "head.safetensors"
    head.save(path)
    again = AcceptanceHead.load(path, "this draft")
    states = torch.randn(5, 8)
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
