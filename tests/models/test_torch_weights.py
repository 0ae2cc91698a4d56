"""Weights in few bits on PyTorch: computed with as if their rounded values had been there from the start."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import foretoken
from foretoken.errors import ModelError
from foretoken.models import source, torch_weights
from foretoken.models.hf import adapt
from foretoken.models.rounding import quantize
from foretoken.models.source import Checkpoint
from foretoken.models.static import freeze
from foretoken.models.torch_weights import ByteLinear, Int4Linear, compress
from tests.contract.far import GPU, FarDevice, far

from .drive import CLOSE, error, random_tokens, read_chain
from .families import FAMILIES, MAX_LENGTH, build, config
from .recorder import Recorder

PROMPTS = ["What is 2 + 3?", "Name a colour, and say why you like it."]


@pytest.mark.parametrize("size", [1, 3, 70])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_rounding(dtype: torch.dtype, size: int) -> None:
    """To the nearest of evenly spaced values, whatever is in a row."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        linear = nn.Linear(64, 5).to(dtype)
        linear.weight.data[1] = 0.0
        linear.weight.data[2] *= 1000
        given = torch.randn(2, size, 64).to(dtype)
    packed = ByteLinear(linear)
    weight = linear.weight.detach().float()
    step = weight.abs().amax(1, keepdim=True) / 127
    rough = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    # A scale that was itself rounded may miss the largest entry by as much.
    assert bool(((packed.weight.float() - weight).abs() <= step * (0.5 + 127 * rough)).all())
    assert packed.codes.abs().max() == 127
    expected = nn.functional.linear(given, packed.weight.to(dtype), linear.bias)
    assert packed(given).shape == expected.shape
    assert error(packed(given).float() / expected.float().abs().max(), expected / expected.abs().max()) < 2 * rough


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_rounding_to_float8(dtype: torch.dtype) -> None:
    """To the nearest of values with three bits behind the first, the largest of a row without a loss."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        linear = nn.Linear(64, 5).to(dtype)
        linear.weight.data[1] = 0.0
        linear.weight.data[2] *= 1000
        given = torch.randn(2, 3, 64).to(dtype)
    packed = ByteLinear(linear, torch.float8_e4m3fn)
    weight, least = linear.weight.detach().float(), 2.0**-6  # below that, codes are evenly spaced
    rough = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    step = weight.abs().clamp_min(packed.scales.float()[:, None] * least) / 16
    assert bool(((packed.weight.float() - weight).abs() <= step + rough * weight.abs()).all())
    assert packed.codes.float().abs().max() == 448
    assert packed.codes.nbytes == linear.weight.numel()
    expected = nn.functional.linear(given, packed.weight, linear.bias).float()
    assert error(packed(given).float() / expected.abs().max(), expected / expected.abs().max()) < 2 * rough


@pytest.mark.parametrize("width", [32, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_four_bits_are_those_of_openvino(dtype: torch.dtype, width: int) -> None:
    """Sixteen levels per group of a row, as every backend rounds."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        linear = nn.Linear(width, 16).to(dtype)
        linear.weight.data[1] = 0.0
        linear.weight.data[2] *= 1000
        given = torch.randn(2, 3, width).to(dtype)
    packed = Int4Linear(linear)
    rounded = torch.from_numpy(quantize(linear.weight.detach().float(), 4).unpacked())
    rough = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    reach = linear.weight.float().abs().amax(1, keepdim=True).clamp_min(1e-9)
    assert bool(((packed.weight.float() - rounded).abs() <= 2 * rough * reach).all())
    assert len(packed.weight[0].unique()) <= 16 * max(width // 64, 1)
    expected = nn.functional.linear(given, packed.weight.to(dtype), linear.bias).float()
    assert packed(given).shape == expected.shape
    assert error(packed(given).float() / expected.abs().max(), expected / expected.abs().max()) < 2 * rough


@pytest.mark.parametrize("bits", ["int8", "int4", "fp8"])
@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - {"gpt2", "falcon"}))
def test_every_family_says_what_its_rounded_weights_say(name: str, bits: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is captured, too. Layers of an unusual class or width keep their weights."""
    monkeypatch.setattr(torch_weights, "kernel", lambda *_: multiplied)
    model_type, settings = FAMILIES[name]
    theirs, ours = (build(config(model_type, **settings)) for _ in range(2))
    compress(ours, bits)
    rounded = [(path, part) for path, part in ours.named_modules() if isinstance(part, (ByteLinear, Int4Linear))]
    for path, part in rounded:
        theirs.get_submodule(path).weight = nn.Parameter(part.weight)  # a tied embedding keeps its own
    assert ours.get_output_embeddings() in [part for _, part in rounded]
    models: list[Any] = [adapt(theirs, MAX_LENGTH), freeze(adapt(ours, MAX_LENGTH), Recorder())]
    tokens = random_tokens(1, 2, 9)
    logits = [read_chain(model, model.new_cache(2), tokens) for model in models]
    assert error(*logits) < CLOSE
    assert models[1].weight_bytes < 0.9 * models[0].weight_bytes
    assert models[1].num_parameters == models[0].num_parameters
    assert error(models[1].output_embedding, models[0].output_embedding) == 0


@pytest.mark.parametrize("bits", ["int8", "int4"])
@pytest.mark.parametrize("backend", ["torch", "graphs"])
def test_a_compressed_target_and_a_target_that_drafts_by_its_own_weights(backend: str, bits: str) -> None:
    how: dict[str, Any] = {"dtype": "float32", "backend": backend}
    full = foretoken.load("builtin:pair", "none", **how).generate(PROMPTS, max_new_tokens=25)
    own = foretoken.load("builtin:pair", bits, length="fixed:3", **how)
    drafted = own.generate(PROMPTS, max_new_tokens=25)
    assert [one.token_ids for one in drafted] == [one.token_ids for one in full]
    assert all(one.stats.acceptance_rate > 0.5 for one in drafted)
    assert own.models[1].weight_bytes < 0.4 * own.models[0].weight_bytes
    plain, drafted = (
        foretoken.load("builtin:pair", draft, quantization=bits, length="fixed:3", **how).generate(
            PROMPTS, max_new_tokens=25
        )
        for draft in ("none", None)
    )
    assert [one.token_ids for one in drafted] == [one.token_ids for one in plain]


def test_without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "find_spec", lambda _: None)
    assert source.pick_backend("auto", torch.device("cpu"), "int8") == "torch"
    assert source.pick_backend("auto", torch.device("cpu"), "int4") == "torch"


def test_what_cannot_be_compressed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(config("gpt2")).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ModelError, match="`gpt2` models cannot be compressed") as caught:
        Checkpoint(str(tmp_path / "gpt2"), "target", quantization="int8").load("float32", "cpu", None, "torch")
    assert "as they are" in str(caught.value.hint)

    def refuse(*_: Any) -> None:
        raise NotImplementedError("no kernel")

    for product, bits in (("_weight_int8pack_mm", 8), ("_weight_int4pack_mm_for_cpu", 4)):
        monkeypatch.setattr(torch, product, refuse)
        with pytest.raises(ModelError, match=f"does not multiply weights in {bits} bits on `cpu`"):
            compress(build(config("llama")), f"int{bits}")


def multiplied(given: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """What the kernel comes to."""
    return nn.functional.linear(given, codes.to(given.dtype) * scales[:, None])


def test_eight_bit_floats_need_a_gpu_that_multiplies_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="fp8 need a GPU") as caught:
        foretoken.load("builtin:pair", "none", quantization="fp8", device="cpu")
    assert "int8" in str(caught.value.hint)
    with pytest.raises(ModelError, match="does not multiply fp8"):
        compress(build(config("llama")), "fp8")


COMPILED = """
import itertools
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from foretoken.models.byte_kernel import DEPTH, OUTPUTS, ROWS, STAGES, _multiply
given, held = ("given", "codes", "scales", "out"), ("num_rows", "num_outputs", "depth")
for dtype, codes, rows in itertools.product(("bf16", "fp16", "fp32"), ("i8", "fp8e4nv"), ROWS):
    sizes = {"ROWS": rows, "OUTPUTS": OUTPUTS, "DEPTH": DEPTH}
    types = {name: f"*{codes if name == 'codes' else dtype}" for name in given}
    signature = types | dict.fromkeys(held, "i32") | dict.fromkeys(sizes, "constexpr")
    source = ASTSource(_multiply, signature, sizes)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_stages": STAGES})
    assert "mma" in made.asm["ptx"] or dtype == "fp32"
    assert made.metadata.shared < 228 << 10, "shared memory of an H100"
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton, which torch for a GPU brings")
def test_the_kernel_compiles_for_a_gpu() -> None:
    """Where there is none, too: its interpreter takes what the compiler refuses."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", COMPILED], check=True)


INTERPRETED = """
import os
os.environ["TRITON_INTERPRET"] = "1"
import torch
from foretoken.models.byte_kernel import multiply
torch.manual_seed(0)
for dtype, most in ((torch.float32, 1e-6), (torch.float16, 1e-3)):
    for rows, outputs, depth in ((1, 16, 64), (3, 40, 96), (17, 33, 288), (70, 33, 64)):
        given, scales = torch.randn(rows, depth).to(dtype), (torch.rand(outputs) + 0.1).to(dtype)
        codes = torch.randint(-127, 128, (outputs, depth), dtype=torch.int8)
        expected = given.double() @ codes.double().T * scales.double()
        found = multiply(given, codes, scales)
        assert found.dtype == dtype and found.shape == expected.shape
        assert (found.double() - expected).norm() < most * expected.norm()
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton, which torch for a GPU brings")
@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) >= "2.4.0", reason="Triton's interpreter needs numpy < 2.4")
def test_the_kernel_for_a_gpu() -> None:
    """As its interpreter runs it: rows, outputs and depths that fill no block."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", INTERPRETED], check=True)


class Kernel:
    """Stands in for the kernel."""

    def __init__(self, what: str) -> None:
        self.what, self.calls = what, 0

    def multiply(self, given: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.what == "fails":
            raise RuntimeError("no compiler")
        product = nn.functional.linear(given, codes.to(given.dtype) * scales[:, None])
        return product + 1 if self.what == "is wrong" else product


@pytest.mark.parametrize("what", ["works", "fails", "is wrong"])
@torch.no_grad()
def test_a_kernel_is_used_where_it_is_proven(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device that is none."""
    stand_in = Kernel(what)
    monkeypatch.setitem(sys.modules, "foretoken.models.byte_kernel", stand_in)
    torch_weights.kernel.cache_clear()
    packed = ByteLinear(nn.Linear(64, 8))
    given = torch.randn(3, 64)
    expected = packed(given)
    for held in (packed._parameters, packed._buffers):
        held.update({name: far(one.data) for name, one in held.items() if one is not None})
    with FarDevice():
        found = [packed(far(rows)) for rows in (given, given.repeat(30, 1))]
    torch_weights.kernel.cache_clear()
    assert error(found[0].as_subclass(torch.Tensor), expected) < CLOSE
    assert error(found[1].as_subclass(torch.Tensor), expected.repeat(30, 1)) < CLOSE
    assert stand_in.calls == (2 if what == "works" else 1)  # the proof, and what is short


@GPU
@pytest.mark.parametrize("codes_as", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("proven", [True, False])
@pytest.mark.parametrize("size", [1, 7, 64, 65])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_eight_bits_on_a_gpu(
    dtype: torch.dtype, size: int, proven: bool, codes_as: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if proven:
        assert torch_weights.kernel(torch.device("cuda", 0), dtype, codes_as) is not None
    else:
        monkeypatch.setattr(torch_weights, "kernel", lambda *_: None)
    linear = nn.Linear(416, 200, dtype=dtype)
    packed, given = ByteLinear(linear.cuda(), codes_as), torch.randn(2, size, 416, dtype=dtype)
    expected = nn.functional.linear(given.double(), packed.weight.cpu().double(), linear.bias.cpu().double())
    found = packed(given.cuda()).cpu().double()
    assert (found - expected).norm() < {torch.float32: 1e-5}.get(dtype, 1e-2) * expected.norm()
