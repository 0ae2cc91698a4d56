"""Every training that is killed outright ends, run again, where it would have ended anyway.

Each dies in its last round, after checkpoints of the others. Processes are forked from one that has loaded the
libraries, since that takes longer than a training.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from foretoken.cli.main import app
from foretoken.train import imitation, language
from foretoken.train.budget import Budget
from foretoken.train.checkpoints import Checkpoints
from foretoken.train.pair import Data, train_pair
from foretoken.train.texts import Source
from tests.cli.conftest import Run

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload([__name__, "transformers.models.llama.modeling_llama"])

ROUND_STEPS = 3
ROWS = [
    {"question": f"What is {a} plus {b}?", "answer": f"{a} plus {b} is {a + b}."} for a in range(9) for b in range(9)
]
SAMPLED = ("--max-new-tokens", "6", "--dtype", "float32")
TRAININGS = {
    "pair": "--budget 1536",
    "draft scratch": "--method scratch --width 32 --layers 1 --budget 1536",
    "draft distill": "--divergence tvd --on-policy 0.5 --interpolate 0.5 --budget 900",
    "draft prune": "--method prune --layers 1 --budget 900",
    "falcon": "--block 2 --texts 20 --rounds 3 --steps 3",
    "blockwise": "--heads 2 --width 8 --memory 4 --texts 20 --rounds 3 --steps 3",
    "pass": "--ahead 2 --cuts 3 --texts 20 --rounds 3 --steps 3",
    "acceptance-head": "--limit 30 --epochs 3",
    "disco": "--limit 30 --epochs 3",
}


@contextmanager
def watched() -> Iterator[list[int]]:
    """Short rounds in this process; notes for every optimizer step after how many finished rounds it came."""
    with pytest.MonkeyPatch.context() as patch:
        rounds, steps, save = [0], [], Checkpoints.save

        def counted(checkpoints: Checkpoints, number: int, state: dict[str, Any]) -> None:
            save(checkpoints, number, state)
            rounds[0] += 1

        def step(optimizer: torch.optim.Optimizer, *_: object) -> None:
            if isinstance(optimizer, torch.optim.AdamW):  # another one finds where heads start
                steps.append(rounds[0])

        patch.setattr(Checkpoints, "save", counted)
        for module in (language, imitation):
            patch.setattr(module, "ROUND_STEPS", ROUND_STEPS)
        hook = register_optimizer_step_pre_hook(step)  # type: ignore[no-untyped-call]
        yield steps
        hook.remove()


def die_in_round(number: int, command: list[str]) -> None:
    torch.set_num_threads(1)
    with watched() as steps:

        def die(*_: object) -> None:
            if steps and steps[-1] == number:
                signal.raise_signal(signal.SIGKILL)

        register_optimizer_step_pre_hook(die)  # type: ignore[no-untyped-call]
        app(command)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A pair that has seen a little."""
    folder = tmp_path_factory.mktemp("pair")
    train_pair(Data([Source.of_rows("sums", ROWS)]), Budget(tokens=20 * 256), 0, folder)
    return ("--target", str(folder / "target"), "--draft", str(folder / "draft"))


def weights(out: Path) -> dict[str, list[Any]]:
    """What was trained, from a file or those in a folder."""
    files = [out] if out.is_file() else sorted(out.rglob("*.safetensors"))
    return {f"{file.relative_to(out.parent)} {k}": v.tolist() for file in files for k, v in load_file(file).items()}


@pytest.mark.parametrize("training", TRAININGS)
def test_sigkill_and_a_damaged_checkpoint_change_nothing(
    run: Run, models: tuple[str, ...], tmp_path: Path, training: str
) -> None:
    data = tmp_path / "sums.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    given = ["train", training.split()[0], *TRAININGS[training].split(), "--data", str(data), "--json"]
    if training != "pair":
        given += [*models[: 2 if training in ("blockwise", "falcon", "pass") else 4], *SAMPLED]
    whole, killed = (tmp_path / name / "trained.safetensors" for name in ("whole", "killed"))

    def trained(out: Path) -> tuple[dict[str, Any], str, list[int]]:
        """Record, warnings, and steps of the optimizer."""
        with watched() as steps:
            result = run(*given, "--out", str(out))
        assert result.code == 0, result.err
        return {key: value for key, value in result.record.items() if key != "seconds"}, result.err, steps

    expected, warned, steps = trained(whole)
    last = max(steps)
    assert last > 0
    assert not warned

    process = FORKED.Process(target=die_in_round, args=(last, [*given, "--out", str(killed)]))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not killed.is_file()
    assert not list(killed.rglob("*.safetensors"))
    found, warned, repeated = trained(killed)
    assert (found, weights(killed), warned) == (expected, weights(whole), "")
    assert len(repeated) == steps.count(last)

    newest = max(killed.parent.rglob("round-*.pt"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:-1])
    found, warned, repeated = trained(killed)
    assert (found, weights(killed)) == (expected, weights(whole))
    assert f"checkpoint `{newest}` is corrupt" in warned
    assert len(repeated) == steps.count(last)
