"""`foretoken doctor`: what is measured, what is missing, and what is said where OpenVINO is not installed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from foretoken.bench import machine, reach
from foretoken.cli import output
from foretoken.models import source
from foretoken.models.source import Checkpoint
from tests.cli.conftest import QUESTION, Run

FACTS: dict[str, Any] = {
    "backends": {"torch": "2.9.0", "openvino": "2026.4.1"},
    "device": "cpu",
    "has_gpu": False,
    "cores": 8,
    "threads": 8,
    "instructions": ["AVX2", "bf16"],
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models and buffers that take no time; times are not what is tested."""
    for size in ("32M", "350M"):
        monkeypatch.setitem(reach.SHAPES, size, (1, 64, 96, 128))
    monkeypatch.setattr(reach, "BUDGET_S", 0.0)
    monkeypatch.setattr(machine, "BUFFER", 2**20)


@pytest.fixture
def without_openvino(loaded: dict[Any, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if it were not installed, and nothing had been loaded by it."""
    monkeypatch.setattr(source, "find_spec", lambda _: None)
    version = machine._version
    monkeypatch.setattr(machine, "_version", lambda name: None if name == "openvino" else version(name))
    before = dict(loaded)
    loaded.clear()
    yield
    loaded.clear()
    loaded.update(before)


def test_json_names_device_ratio_and_what_is_missing(run: Run, small: None) -> None:
    result = run("doctor", "--json", "--large")
    assert (result.code, result.err) == (0, "")
    record = result.record
    assert record["schema"] == "foretoken.doctor/1"
    assert record["device"] == "cpu"
    assert record["bandwidth_bytes_per_s"] > 0
    assert set(record["backends"]) == {"torch", "graphs", "openvino"}
    assert record["chosen"]["backend"] == ("openvino" if find_spec("openvino") else "torch")
    names = [one["model"] for one in record["steps"]]
    assert names == ["the built-in target", "a random 32M Llama", "a random 350M Llama"]
    for one in record["steps"]:
        assert one["floor_s"] == pytest.approx(one["weight_bytes"] / one["bandwidth_bytes_per_s"])
        assert one["bandwidth_ratio"] == pytest.approx(one["floor_s"] / one["step_s"])
    # The weights are bfloat16, and only torch makes float32 of them.
    width = 4 if (record["chosen"]["backend"], record["chosen"]["dtype"]) == ("torch", "float32") else 2
    matrices = 4 * 64 * 64 + 3 * 64 * 96 + 64 * 128
    assert record["steps"][1]["weight_bytes"] == pytest.approx(width * matrices, rel=0.02)


def test_people_get_a_table_and_nothing_is_left_behind(run: Run, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Path] = []
    save = reach.save_random
    monkeypatch.setattr(reach, "save_random", lambda shape, folder: (saved.append(folder), save(shape, folder)))
    result = run("doctor", "--backend", "torch", "--dtype", "float32")
    assert (result.code, result.err) == (0, "")
    for words in ("processor", "instructions", "GB/s", "torch in float32", "the built-in target", "of the limit"):
        assert words in result.out
    assert len(saved) == 1
    assert not saved[0].exists()


def test_compressed_weights_are_fewer_bytes(run: Run, small: None) -> None:
    store = pytest.importorskip("foretoken.models.openvino_store", reason="needs the extra `openvino`")
    sizes = []
    for bits in ("none", "int8", "int4"):
        record = run("doctor", "--json", "--dtype", "float32", "--quantization", bits).record
        sizes.append(record["steps"][0]["weight_bytes"])
    assert sizes[0] > 1.9 * sizes[1] > 2.75 * sizes[2] > 0
    kept = {entry.name for entry in store.home("openvino").iterdir()}
    builtin = {store.key(Checkpoint("builtin:pair", "target", quantization=bits)) for bits in ("none", "int8", "int4")}
    assert builtin <= kept  # users will load it again


def test_bad_choices(run: Run, no_weights: None) -> None:
    for words in (["--quantization", "int5"], ["--dtype", "int9"], ["--device", "gpu9"]):
        result = run("doctor", *words)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith("error: ")


def test_without_openvino_everything_works_and_says_so(run: Run, small: None, without_openvino: None) -> None:
    record = run("doctor", "--json").record
    assert record["backends"]["openvino"] is None
    assert record["chosen"]["backend"] == "torch"
    assert record["missing"][0]["install"] == "pip install 'foretoken[openvino]'"
    assert "missing: OpenVINO" in run("doctor").out


def test_without_openvino_answers_come_with_one_note(run: Run, without_openvino: None) -> None:
    result = run("generate", QUESTION, "--max-new-tokens", "3", "--dtype", "float32")
    assert result.code == 0
    assert result.err.count("\n") == 1  # target and draft, once
    assert "pip install 'foretoken[openvino]'" in result.err
    assert run("generate", QUESTION, "--max-new-tokens", "3", "--dtype", "float32", "--quiet").err == ""
    assert run("generate", QUESTION, "--max-new-tokens", "3", "--dtype", "float32", "--backend", "torch").err == ""


def test_a_spinner_shows_how_far_a_conversion_is() -> None:
    log, heard = logging.getLogger("foretoken"), list[str]()
    before = log.handlers[:], log.level
    with output._heard(heard.append):
        log.info("converting %s (%d of 4)", "it", 2)
    log.info("not any more")
    assert heard == ["converting it (2 of 4)"]
    assert (log.handlers, log.level) == before


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({}, None),
        ({"backends": {"torch": "2.9.0", "openvino": None}}, "OpenVINO"),
        ({"backends": {"torch": "2.9.0", "openvino": "broken: libtbb"}}, "OpenVINO is broken: libtbb"),
        ({"has_gpu": True}, "a torch that sees the GPU"),
        ({"threads": 2}, "threads"),
        ({"instructions": ["AVX2"]}, "bf16 arithmetic"),
        ({"device": "cuda", "has_gpu": True, "threads": 2, "instructions": []}, None),
    ],
)
def test_what_is_missing(change: dict[str, Any], what: str | None) -> None:
    found = machine.missing(FACTS | change)
    assert [one["what"] for one in found] == ([what] if what else [])
    assert all(one["loss"] and one["install"] for one in found)


def test_what_the_system_says(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor: 0\nflags\t\t: fpu avx2 avx512f avx_vnni amx_tile amx_bf16\n")
    assert machine.instructions(file) == ["AVX2", "AVX-512", "VNNI", "bf16", "AMX"]
    file.write_text("Features\t: fp asimd i8mm bf16\n")
    assert machine.instructions(file) == ["bf16", "NEON", "i8mm"]
    assert machine.instructions(tmp_path / "missing") == [torch.backends.cpu.get_cpu_capability()]
    file.write_text("MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:    500 kB\nHugePages_Total:       0\n")
    assert machine.memory(file) == {"total": 1024000, "available": 512000}
    assert machine.memory(tmp_path / "missing") == {"total": None, "available": None}


def test_a_backend_that_does_not_import_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: str) -> None:
        raise ImportError("libtbb.so.12: cannot open shared object file")

    monkeypatch.setattr(machine, "import_module", fails)
    assert machine.backends()["openvino"] == "broken: libtbb.so.12: cannot open shared object file"


def test_random_weights_are_always_the_same(tmp_path: Path) -> None:
    prints = []
    for name in ("one", "two"):
        reach.save_random((1, 64, 96, 128), tmp_path / name)
        prints.append(Checkpoint(str(tmp_path / name), "target").fingerprint)
    assert prints[0] == prints[1]
