"""`foretoken doctor`: what this machine has, how much of it is used, and what would make it faster."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from foretoken.cli.command import grouped
from foretoken.cli.hardware import hardware
from foretoken.cli.loading import hush
from foretoken.cli.options import OutputOptions
from foretoken.cli.output import print_json, progress, stdout
from foretoken.config import DEFAULT_TARGET

if TYPE_CHECKING:
    from foretoken.bench.machine import Bandwidth
    from foretoken.bench.reach import Reach
    from foretoken.models.source import Checkpoint

EXAMPLES = ("foretoken doctor", "foretoken doctor --large --quantization int8 --json")


@grouped
def doctor(
    *,
    large: Annotated[bool, typer.Option("--large", help="Also time a 350M model (2 GB of memory and disk).")] = False,
    dtype: Annotated[str, typer.Option(metavar="DTYPE", help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, ...")] = "auto",
    backend: Annotated[str, typer.Option(metavar="NAME", help="auto, torch, graphs (GPU) or openvino (CPU).")] = "auto",
    quantization: Annotated[
        str, typer.Option(metavar="BITS", help="none, int8, int4 or (on a GPU) fp8 weights.")
    ] = "none",
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, notes or warnings.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Tracebacks and library messages.")] = False,
) -> None:
    """Say what this machine has, how near a step comes to its memory's limit, and what to install to go faster.

    A step that decodes one token reads all weights, so it takes at least their bytes over the memory's bandwidth; that
    is measured here, and in turn with it a step of the built-in target and one of a random 32M model. Nothing else
    should be running meanwhile. Where caches hold the weights, a step can take less than that.
    """
    with progress("looking at the machine", quiet) as update:
        hush(OutputOptions(quiet=quiet, debug=debug))
        from foretoken.bench.machine import Bandwidth, missing
        from foretoken.models.source import pick_backend, pick_device, pick_dtype

        where = pick_device(device)
        number, picked = pick_dtype(dtype, where), pick_backend(backend, where, quantization)
        facts = _facts(where.type)
        update("measuring how fast memory is read")
        bandwidth = Bandwidth(where)
        best = bandwidth.best()
        chosen = {"backend": picked, "dtype": str(number).removeprefix("torch."), "quantization": quantization}
        options = (dtype, device, None, backend)
        reached = []
        for name, checkpoint in _checkpoints(large, quantization):
            update(f"timing {name}")
            reached.append(_reach(name, checkpoint, options, bandwidth))
    record = {
        **facts,
        "chosen": chosen,
        "bandwidth_bytes_per_s": best,
        "steps": [asdict(one) for one in reached],
        "missing": missing(facts),
    }
    if json:
        print_json("doctor/1", record)
    else:
        _show(record)


def _facts(device: str) -> dict[str, Any]:
    """What is there, before anything is timed."""
    from foretoken.bench.machine import backends, has_gpu, instructions, memory

    found = hardware()
    return {
        "device": device,
        **{name: found[name] for name in ("cpu", "cores", "threads", "gpu", "python")},
        "has_gpu": has_gpu(),
        "instructions": instructions(),
        "memory_bytes": memory(),
        "backends": backends(),
    }


def _checkpoints(large: bool, quantization: str) -> Iterator[tuple[str, Checkpoint]]:
    """What is timed, each with its name; random models are gone again when the next one is asked for."""
    from foretoken.bench.reach import SHAPES, save_random
    from foretoken.models.source import Checkpoint

    yield "the built-in target", Checkpoint(DEFAULT_TARGET, "target", quantization=quantization)
    for size in ("32M", "350M") if large else ("32M",):
        with TemporaryDirectory(prefix="foretoken-") as folder:
            save_random(SHAPES[size], Path(folder))
            checkpoint = Checkpoint(folder, "target", quantization=quantization)
            try:
                yield f"a random {size} Llama", checkpoint
            finally:
                _forget(checkpoint)


def _reach(name: str, checkpoint: Checkpoint, options: tuple[Any, ...], bandwidth: Bandwidth) -> Reach:
    from foretoken.bench.reach import reach
    from foretoken.models import threads

    model = checkpoint.load(*options)
    threads.settle([model.backend])
    try:
        return reach(name, model, bandwidth)
    finally:
        threads.settle(["torch"])


def _forget(checkpoint: Checkpoint) -> None:
    """Remove the conversion of a model that nobody will load again."""
    from foretoken.bench.machine import backends

    if (version := backends()["openvino"]) and not version.startswith("broken"):
        from foretoken.models.openvino_store import key
        from foretoken.models.store import home

        shutil.rmtree(home("openvino") / key(checkpoint), ignore_errors=True)


def _show(record: dict[str, Any]) -> None:
    """For people."""
    console = stdout()
    about = Table.grid(padding=(0, 2))
    about.add_column(style="dim", no_wrap=True)
    about.add_column()
    for name, text in _about(record):
        about.add_row(name, text)
    steps = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    steps.add_column("a plain step of")
    for head in ("MB", "at least, ms", "takes, ms", "of the limit", "tokens read"):
        steps.add_column(head, justify="right", no_wrap=True)
    for one in record["steps"]:
        times = (f"{1e3 * one[name]:.2f}" for name in ("floor_s", "step_s"))
        share, read = f"{one['bandwidth_ratio']:.0%}", f"{one['tokens_read']}"
        steps.add_row(one["model"], f"{one['weight_bytes'] / 1e6:.0f}", *times, share, read)
    console.print(about, "", steps, "", sep="\n")
    for one in record["missing"]:
        console.print(Text.assemble("missing: ", (one["what"], "bold"), f" ({one['loss']})\n  -> {one['install']}"))
    if not record["missing"]:
        console.print("nothing is missing")


def _about(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What there is, line by line."""
    yield "processor", f"{record['cpu']}, {record['cores']} cores, {record['threads']} threads in use"
    yield "instructions", ", ".join(record["instructions"]) or "none that help"
    sizes = {kind: "?" if size is None else f"{size / 1e9:.1f}" for kind, size in record["memory_bytes"].items()}
    yield "memory", f"{sizes['total']} GB, {sizes['available']} free"
    yield "GPU", record["gpu"] or "none that torch can use"
    yield "bandwidth", f"{record['bandwidth_bytes_per_s'] / 1e9:.1f} GB/s read by `{record['device']}`"
    absent = {"graphs": "without a GPU"}
    found = (f"{name} {version or absent.get(name, 'not installed')}" for name, version in record["backends"].items())
    yield "backends", ", ".join(found)
    chosen = record["chosen"]
    weights = "" if chosen["quantization"] == "none" else f", weights in {chosen['quantization']}"
    yield "chosen", f"{chosen['backend']} in {chosen['dtype']}{weights}"
