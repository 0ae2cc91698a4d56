"""What is left after an interruption is whole, newest first, and enough to end where one would have ended anyway."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from foretoken.errors import ConfigError
from foretoken.train.checkpoints import Checkpoints, claim, grown, remembered
from foretoken.train.rounds import learning_rate, run_rounds, set_learning_rate


class KilledError(Exception):
    """Stands for the process that is gone."""


def train(folder: Path, killed_in: int | None = None) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """Six rounds of a net with dropout on random data; optionally gone in the middle of one."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(net.parameters())

    def one_round(number: int) -> None:
        net.train()
        for step in range(3):
            if number == killed_in and step == 1:
                raise KilledError
            set_learning_rate(optimizer, 1e-2, (number * 3 + step) / 18)
            optimizer.zero_grad()
            net(torch.randn(16, 4)).square().mean().backward()
            optimizer.step()

    def score() -> float:
        return float(net(torch.ones(1, 4)).square().mean())

    found = run_rounds(net, optimizer, 6, one_round, score, Checkpoints(folder), seed=1)
    return net.state_dict(), found


@pytest.mark.parametrize("killed_in", [0, 1, 4])
def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(tmp_path: Path, killed_in: int) -> None:
    weights, found = train(tmp_path / "whole")
    with pytest.raises(KilledError):
        train(tmp_path / "killed", killed_in)
    again, found_again = train(tmp_path / "killed")
    assert found_again == found
    assert found["score"] == min(found["scores"])  # type: ignore[call-overload]
    for name, value in weights.items():
        assert torch.equal(again[name], value), name


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        del content[len(content) // 2 :]
    elif how == "one bit":
        content[len(content) // 2] ^= 1
    else:
        content = bytearray(b"broken")
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("how", ["cut", "one bit", "replaced"])
def test_a_corrupt_checkpoint_is_reported_and_the_one_before_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    weights, found = train(tmp_path)
    (newest,) = tmp_path.glob("round-5.*.pt")
    damage(newest, how)
    with caplog.at_level(logging.WARNING):
        number, _ = Checkpoints(tmp_path).newest() or (None, None)
    assert number == 4
    assert f"checkpoint `{newest}` is corrupt" in caplog.text
    again, found_again = train(tmp_path)
    assert found_again == found
    assert all(torch.equal(again[name], value) for name, value in weights.items())


def test_only_the_newest_are_kept_and_a_torn_file_is_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.newest() is None
    for number in range(12):
        checkpoints.save(number, {"number": number})
    assert sorted(path.name.split(".")[0] for path in tmp_path.glob("*.pt")) == ["round-10", "round-11"]
    (tmp_path / "round-12.part").write_bytes(b"half")
    assert checkpoints.newest() == (11, {"number": 11})
    checkpoints.save(11, {"number": "again"})
    assert checkpoints.newest() == (11, {"number": "again"})


def test_the_learning_rate_rises_then_falls() -> None:
    rates = [learning_rate(i / 100, warm_up=0.1) for i in range(101)]
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == rates[10] == 1.0
    assert min(rates) == 1e-3


def test_lines_grow_by_groups_and_survive_a_torn_end(tmp_path: Path) -> None:
    path, made = tmp_path / "lines.jsonl", []

    def make(items: range) -> list[dict[str, int]]:
        made.append(items)
        return [{"n": n} for n in items]

    assert list(grown(path, 10, 4, make)) == [4, 8, 10]
    whole = path.read_text()
    assert [json.loads(line)["n"] for line in whole.splitlines()] == list(range(10))
    assert list(grown(path, 10, 4, make)) == []
    for cut, again in ((-1, [range(8, 10)]), (-5, [range(8, 10)]), (40, [range(4, 8), range(8, 10)])):
        path.write_text(whole[:cut])
        made.clear()
        assert list(grown(path, 10, 4, make))
        assert made == again
        assert path.read_text() == whole


def test_what_was_decided_once_stays(tmp_path: Path) -> None:
    assert remembered(tmp_path / "plan.json", lambda: {"steps": 3}) == {"steps": 3}
    assert remembered(tmp_path / "plan.json", lambda: {"steps": 4}) == {"steps": 3}


def test_a_folder_belongs_to_one_training(tmp_path: Path) -> None:
    claim(tmp_path / "work", {"a": 1})
    claim(tmp_path / "work", {"a": 1})
    with pytest.raises(ConfigError, match="holds another training"):
        claim(tmp_path / "work", {"a": 2})
