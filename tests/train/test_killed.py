"""A training whose process is killed outright goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from foretoken.train.budget import Budget
from foretoken.train.pair import Data, train_pair
from foretoken.train.texts import Source

ROWS = [{"text": f"The number after {n} is {n + 1}, and the one before it is {n - 1}.\n"} for n in range(200)]
TRAIN = """
import sys, torch
from pathlib import Path
from tests.train.test_killed import train
torch.set_num_threads(1)
train(Path(sys.argv[1]))
"""


def train(out: Path) -> dict[str, object]:
    return train_pair(Data([Source.of_rows("numbers", ROWS)]), Budget(tokens=160 * 256), 3, out)


def test_sigkill_changes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", TRAIN, str(out)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not list((out / "work" / "target").glob("round-*.pt")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "draft").exists()
    assert json.dumps(train(out)) == json.dumps(train(tmp_path / "whole"))
