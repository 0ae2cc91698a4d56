"""What a machine can do for a model: its instructions, its memory, and how fast that is read."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from foretoken.models import threads

# What makes products of matrices fast, by the processor's own words for it.
INSTRUCTIONS = {
    "AVX2": {"avx2"},
    "AVX-512": {"avx512f"},
    "VNNI": {"avx512_vnni", "avx_vnni"},
    "bf16": {"avx512_bf16", "amx_bf16", "bf16"},
    "AMX": {"amx_tile"},
    "NEON": {"asimd"},
    "i8mm": {"i8mm"},
    "SVE": {"sve"},
}
BUFFER = 2**29  # bytes; more than caches hold
ROUNDS = 7


def instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Those of `INSTRUCTIONS` that the processor has; where the system does not say, what torch found out."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    flags = {flag for line in lines if line.lower().startswith(("flags", "features")) for flag in line.split()}
    if not flags:
        return [torch.backends.cpu.get_cpu_capability()]
    return [name for name, words in INSTRUCTIONS.items() if words & flags]


def memory(meminfo: Path = Path("/proc/meminfo")) -> dict[str, int | None]:
    """Bytes of memory, `total` and `available`; None where the system does not say."""
    lines = meminfo.read_text().splitlines() if meminfo.is_file() else []
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if rest}
    found = {kind: kilobytes.get(f"Mem{kind.capitalize()}") for kind in ("total", "available")}
    return {kind: None if size is None else 1024 * size for kind, size in found.items()}


class Bandwidth:
    """How fast memory is read by all threads together, as sums over a buffer that no cache holds.

    On a CPU each thread sums a part of its own: torch's threads would wait for more by spinning, beside whatever is
    timed next.

    Args:
        device: whose memory.
    """

    def __init__(self, device: torch.device) -> None:
        available = memory()["available"] if device.type == "cpu" else None
        size = BUFFER if available is None else min(BUFFER, available // 4)
        self._values = torch.ones(max(size // 4, 1), device=device)
        self._parts = self._values.chunk(threads.available() if device.type == "cpu" else 1)

    def measure(self) -> float:
        """Bytes per second of reading it once."""
        with threads.spared(), ThreadPoolExecutor(len(self._parts)) as pool:
            begin = perf_counter()
            list(pool.map(lambda part: part.sum().item(), self._parts))  # waits for the device
            return self._values.nbytes / (perf_counter() - begin)

    def best(self) -> float:
        """The most of a few."""
        return max(self.measure() for _ in range(ROUNDS))


def backends() -> dict[str, str | None]:
    """Version of what each backend runs on, None for those that are not installed, or have no GPU."""
    graphs = f"CUDA {torch.version.cuda}" if torch.cuda.is_available() else None
    return {"torch": _version("torch"), "graphs": graphs, "openvino": _version("openvino")}


def _version(name: str) -> str | None:
    try:
        version: str = import_module(name).__version__
        return version.partition("-")[0]
    except ModuleNotFoundError:
        return None
    except Exception as error:  # a library of the system is missing, or of another processor
        return f"broken: {(str(error).strip().splitlines() or [type(error).__name__])[0]}"


def missing(facts: dict[str, Any]) -> list[dict[str, str]]:
    """What would make this machine faster: `what` is missing, what that costs (`loss`), and what to do (`install`).

    Args:
        facts: `backends`, `device`, `has_gpu` (whether the machine has one, seen by torch or not), `cores`, `threads`
            and `instructions`.
    """
    found = []

    def add(what: str, loss: str, install: str) -> None:
        found.append({"what": what, "loss": loss, "install": install})

    version = facts["backends"]["openvino"]
    lacks = version is None or version.startswith("broken")
    if facts["device"] == "cpu" and lacks:
        state = "OpenVINO" if version is None else f"OpenVINO is {version}"
        add(state, "a step takes two to three times as long", OPENVINO)
    if facts["has_gpu"] and facts["device"] == "cpu":
        add("a torch that sees the GPU", "models run on the CPU", "a CUDA build of torch, and a driver it accepts")
    if facts["device"] == "cpu" and facts["threads"] < facts["cores"]:
        loss = f"{facts['threads']} of {facts['cores']} cores are used"
        add("threads", loss, f"unset OMP_NUM_THREADS, or set it to {facts['cores']}")
    if facts["device"] == "cpu" and "bf16" not in facts["instructions"]:
        loss = "weights are read in float32, twice the bytes" if lacks else "several tokens cost more than one"
        add("bf16 arithmetic", loss, "a processor that has it; `--quantization int8` halves the bytes, and is lossy")
    return found


OPENVINO = "pip install 'foretoken[openvino]'"


def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU, seen by torch or not."""
    return torch.cuda.is_available() or os.path.exists("/dev/nvidia0")
