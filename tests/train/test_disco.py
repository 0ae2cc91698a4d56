"""Data and training of DISCO's classifier."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import foretoken
from foretoken.errors import ConfigError
from foretoken.models.disco_classifier import DEPTH, DiscoClassifier
from foretoken.models.predictor import TEMPERATURE
from foretoken.request import Sampling
from foretoken.train.acceptance_data import Example
from foretoken.train.disco import Recipe, depths, described, train
from foretoken.train.fitting import fit
from foretoken.types import Draft

PROMPTS = [f"What is {a} plus {a + 3}?" for a in range(30)]
RECIPE = Recipe(max_new_tokens=6, epochs=2, batch=32)


@pytest.fixture(scope="module")
def llm() -> foretoken.LLM:
    return foretoken.load(dtype="float32", backend="torch")


def test_depths_count_from_any_start_since_the_last_rejection() -> None:
    rng = np.random.default_rng(0)
    labels = [1.0, 1.0, 0.0, 1.0, 1.0]
    seen = [set(column) for column in zip(*(depths(labels, 20, rng) for _ in range(200)), strict=True)]
    assert seen == [{1}, {1, 2}, {1, 2, 3}, {1}, {1, 2}]
    assert set(depths([1.0] * 400, 3, rng)) == {1, 2, 3}
    assert set(depths([0.0] * 400, 3, rng)) == {1}


def test_every_start_is_as_likely_and_labels_are_chances() -> None:
    rng = np.random.default_rng(0)
    third = [depths([1.0, 0.5, 1.0], 20, rng)[2] for _ in range(4000)]
    # Half of the time the second token was rejected: depth 1. Else depths 1, 2, 3 alike.
    for depth, chance in ((1, 1 / 2 + 1 / 6), (2, 1 / 6), (3, 1 / 6)):
        assert third.count(depth) / 4000 == pytest.approx(chance, abs=0.03)


def test_features_in_training_are_those_of_drafting(llm: foretoken.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first candidate of a step, as the policy sees it, against the same position read in one piece."""
    net, shown = DiscoClassifier(), []
    logit = DiscoClassifier.logit

    def watch(self: DiscoClassifier, features: torch.Tensor) -> torch.Tensor:
        shown.append(features)
        return logit(self, features)

    monkeypatch.setattr(DiscoClassifier, "logit", watch)
    engine = llm.using(length="disco").engine()
    row = engine.start([llm.request("Name three colours.", Sampling(temperature=1.0), seed=5)])[0]
    context, drafts, observe = list(row.tokens), [], engine.length.observe

    def keep(batch: object, draft: Draft, verdict: object) -> None:
        drafts.append(draft)
        observe(batch, draft, verdict)  # type: ignore[arg-type]

    monkeypatch.setattr(engine.length, "observe", keep)
    engine.step()
    monkeypatch.undo()
    token = int(drafts[0].tokens[0, 1])
    example = Example(1.0, context, [7], [token], [0.0], [0.0], [0.4], [0.0])
    model = llm.models[1]
    assert model is not None
    ((features, labels),) = described(net, model, [example])
    torch.testing.assert_close(features, shown[0], atol=1e-4, rtol=1e-4)
    assert labels.tolist() == pytest.approx([0.4])


def test_the_loss_finds_the_acceptance_rate_of_each_depth_and_temperature(tmp_path: Path) -> None:
    """Two columns decide here, and the trained net says what happened on average in each of their cases."""
    rng = torch.Generator().manual_seed(0)
    features = torch.zeros(4000, 14)
    features[:, DEPTH] = torch.randint(0, 2, (4000,), generator=rng).float()
    features[:, TEMPERATURE] = torch.randint(0, 2, (4000,), generator=rng).float()
    chance = 0.2 + 0.5 * features[:, DEPTH] + 0.2 * features[:, TEMPERATURE]
    labels = (torch.rand(4000, generator=rng) < chance).float()
    torch.manual_seed(0)
    net, part = DiscoClassifier(), (features, labels)
    fit(net, lambda epoch: part, part, replace(RECIPE, epochs=30, batch=512), tmp_path, lambda *_: None)
    for case in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)):
        here = (features[:, DEPTH] == case[0]) & (features[:, TEMPERATURE] == case[1])
        assert net(features[here])[0].item() == pytest.approx(labels[here].mean().item(), abs=0.02)


def test_training_is_reproducible_and_sampling_goes_on_after_a_torn_line(llm: foretoken.LLM, tmp_path: Path) -> None:
    whole = train(llm, PROMPTS, RECIPE, tmp_path / "whole")
    assert [one["temperature"] for one in whole.card["by_temperature"]] == [0.0, 1.0]
    assert whole.card["num_examples"] == 30
    # Killed while sampling the second temperature, with a torn line.
    torn = tmp_path / "torn"
    torn.mkdir()
    for file in ("examples-0.jsonl", "examples-1.jsonl"):
        (torn / file).write_text((tmp_path / "whole" / file).read_text())
    lines = (torn / "examples-1.jsonl").read_text().splitlines(keepends=True)
    (torn / "examples-1.jsonl").write_text("".join(lines[:3]) + lines[3][:40])
    again = train(llm, PROMPTS, RECIPE, torn)
    assert again.card == whole.card
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_what_cannot_be_trained_is_refused(llm: foretoken.LLM, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too few"):
        train(llm, PROMPTS[:5], RECIPE, tmp_path)
    with pytest.raises(ConfigError, match="belongs to a draft"):
        train(foretoken.load(draft="none", weights=False), PROMPTS, RECIPE, tmp_path)
    for bad in ({"temperatures": ()}, {"most": 0}, {"epochs": 0}, {"reject_weight": 0.0}):
        with pytest.raises(ConfigError):
            Recipe(**bad)  # type: ignore[arg-type]


def test_the_shipped_classifier_is_calibrated_and_better_than_a_constant(llm: foretoken.LLM) -> None:
    card = llm.using(length="disco")._length._classifier.card  # type: ignore[attr-defined]
    assert card["calibration_error"] < 0.03
    assert card["divergence"] < 0.8 * card["divergence_of_mean"]
    assert card["recipe"] == {**card["recipe"], "temperatures": [0.0, 1.0]}
