"""Predicted probabilities are measured against labels, and mended."""

from __future__ import annotations

import pytest
import torch

from foretoken.models.acceptance_head import AcceptanceHead, HeadShape
from foretoken.train.calibration import calibrate, calibration_error, divergence, reliability


def test_divergence_is_zero_for_the_labels_themselves_and_else_what_the_formula_says() -> None:
    labels = torch.tensor([0.0, 0.25, 1.0])
    assert divergence(labels, labels) == pytest.approx(0, abs=1e-6)
    expected = 0.25 * torch.log(torch.tensor(0.25 / 0.5)) + 0.75 * torch.log(torch.tensor(0.75 / 0.5))
    assert divergence(torch.tensor([0.5]), torch.tensor([0.25])) == pytest.approx(expected.item(), abs=1e-6)


def test_reliability_table_and_its_error_by_hand() -> None:
    probability = torch.tensor([0.05, 0.05, 0.95, 0.95, 1.0])
    table = reliability(probability, torch.tensor([0.0, 0.5, 1.0, 1.0, 0.7]))
    assert [row["count"] for row in table] == [2, 3]
    assert table[0]["observed"] == pytest.approx(0.25)
    assert table[1]["predicted"] == pytest.approx(2.9 / 3)
    assert calibration_error(table) == pytest.approx((2 * 0.2 + 3 * abs(2.9 / 3 - 0.9)) / 5)


def test_calibration_undoes_a_wrong_scale_and_shift() -> None:
    torch.manual_seed(0)
    head = AcceptanceHead(HeadShape(4, depth=1)).requires_grad_(False)
    states = 3 * torch.randn(4000, 6)
    truth = torch.sigmoid(0.4 * head.logit(states) - 0.7)
    assert calibration_error(reliability(head(states), truth)) > 0.1
    calibrate(head, states, truth)
    assert head.scale.item() == pytest.approx(0.4, abs=0.01)
    assert head.shift.item() == pytest.approx(-0.7, abs=0.01)
    assert calibration_error(reliability(head(states), truth)) < 0.01
