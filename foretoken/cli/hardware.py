"""What a number was measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path


def hardware() -> dict[str, str | int | None]:
    """Processor, cores and threads in use, GPU if there is one, and the versions that matter for speed."""
    import torch
    import transformers

    from foretoken.models import threads

    return {
        "cpu": _cpu_name(),
        "cores": _cores(),
        "threads": threads.available(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "openvino": version("openvino") if find_spec("openvino") else None,
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    """The processor's own name where the system tells it, else its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cores() -> int:
    """Cores this process may use, which containers and `taskset` make fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
