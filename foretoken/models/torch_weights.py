"""Weights in 8 or 4 bits on PyTorch, unpacked inside its own matrix products: less to read per token."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from foretoken.config import BITS
from foretoken.errors import ModelError
from foretoken.models.proof import same
from foretoken.models.rounding import quantize

LEVELS = {torch.int8: 127, torch.float8_e4m3fn: 448}  # the largest code of a type, on either side of zero
BYTES = {"fp8": torch.float8_e4m3fn}  # types of codes of one byte, where they are not int8
BLOCK = 32  # what the products read at once: a row of another size would be read beyond its end
ROWS = 16  # what the one of 4 bits writes at once
SHORT = 64  # tokens up to which a GPU unpacks 8 bits on the way; for more, all of them first

Product: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


@lru_cache
def kernel(device: torch.device, dtype: torch.dtype, codes_as: torch.dtype) -> Product | None:
    """The product that unpacks codes of one byte on the way, if it runs on that GPU and says there what it should."""
    try:
        from foretoken.models.byte_kernel import multiply

        given, codes = (torch.arange(size, device=device).sin() for size in (3 * BLOCK, 5 * BLOCK))
        given, codes = given.reshape(3, -1).to(dtype), (codes.reshape(5, -1) * LEVELS[codes_as]).to(codes_as)
        scales = torch.linspace(0.5, 1, 5, device=device).to(dtype)
        expected = nn.functional.linear(given.float(), codes.float() * scales.float()[:, None])
        return multiply if same(multiply(given, codes, scales), expected) else None
    except Exception:  # there is no Triton, or no compiler for it, or not for this GPU
        return None


class PackedLinear(nn.Module):
    """A linear layer whose weights are kept in few bits."""

    bias: Tensor | None

    def forward(self, given: Tensor) -> Tensor:
        """[..., in] float -> [..., out] float."""
        out = self._product(given.reshape(-1, given.shape[-1]).contiguous())
        return (out if self.bias is None else out + self.bias).reshape(*given.shape[:-1], -1)

    def _product(self, flat: Tensor) -> Tensor:
        """[M, in] float -> [M, out] float, without the bias."""
        raise NotImplementedError


class ByteLinear(PackedLinear):
    """Weights that are codes of one byte times a scale per row.

    Args:
        linear: what it stands for.
        codes_as: int8, evenly spaced; or float8 (e4m3), the finer the smaller.
    """

    scales: Tensor

    def __init__(self, linear: nn.Linear, codes_as: torch.dtype = torch.int8) -> None:
        super().__init__()
        weight, most = linear.weight.detach(), LEVELS[codes_as]
        scales = weight.float().abs().amax(1) / most
        # As short as it is used, or the codes would be those of another scale.
        scales = torch.where(scales == 0, 1, scales).to(weight.dtype)
        codes = (weight.float() / scales.float()[:, None]).clamp(-most, most)
        codes = codes.round() if codes_as is torch.int8 else codes
        self.codes = nn.Parameter(codes.to(codes_as), requires_grad=False)
        self.register_buffer("scales", scales)
        self.bias = linear.bias

    @property
    def weight(self) -> Tensor:
        """[out, in] float. What it computes with, unpacked."""
        return self.codes.to(self.scales.dtype) * self.scales[:, None]

    def _product(self, flat: Tensor) -> Tensor:
        codes_as = self.codes.dtype
        if flat.device.type == "cpu" and codes_as is torch.int8:
            return torch._weight_int8pack_mm(flat, self.codes, self.scales)
        if flat.device.type != "cpu" and len(flat) <= SHORT and (multiply := kernel(flat.device, flat.dtype, codes_as)):
            return multiply(flat, self.codes, self.scales)
        return nn.functional.linear(flat, self.weight)


class Int4Linear(PackedLinear):
    """Weights that are 4-bit codes times a scale per group, on top of a middle per group.

    Args:
        linear: what it stands for.
    """

    levels: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        packed = quantize(weight.float().cpu(), 4)
        self.group = int(packed.codes.shape[-1])
        # PyTorch counts from the middle of sixteen levels.
        middles = (8 - packed.zeros.astype("float32")) * packed.scales
        levels = torch.cat([torch.from_numpy(packed.scales), torch.from_numpy(middles)], -1).transpose(0, 1)
        codes = torch.from_numpy(packed.codes).reshape(weight.shape).to(weight.device)
        self.codes = nn.Parameter(_pack(codes), requires_grad=False)
        self.register_buffer("levels", levels.contiguous().to(weight))
        self.bias = linear.bias

    @property
    def weight(self) -> Tensor:
        """[out, in] float. What it computes with, unpacked."""
        return self._product(torch.eye(self.levels.shape[0] * self.group).to(self.levels)).T

    def _product(self, flat: Tensor) -> Tensor:
        multiply = torch._weight_int4pack_mm_for_cpu if flat.device.type == "cpu" else torch._weight_int4pack_mm
        return multiply(flat, self.codes, self.group, self.levels)


def _pack(codes: Tensor) -> Tensor:
    """[out, in] uint8 -> two to a byte, as PyTorch's product wants them on that device."""
    if codes.device.type == "cpu":
        return torch._convert_weight_to_int4pack_for_cpu(codes.to(torch.int32), 1)
    tiles = next(tiles for tiles in (8, 4, 2) if codes.shape[1] % (16 * tiles) == 0)
    return torch._convert_weight_to_int4pack(codes[:, ::2] << 4 | codes[:, 1::2], tiles)


def compress(model: PreTrainedModel, quantization: str) -> None:
    """Put layers of few bits where a model has linear ones.

    The output embedding gets 8 bits in any case, as do layers whose outputs are no multiple of 16. Layers whose width
    is no multiple of 32 stay as they are, which those of large models hardly ever are. An input embedding that shares
    its weights with the output embedding keeps them as they were.

    Args:
        model: on its device, in the type of its arithmetic.
        quantization: "int8", "int4" or "fp8".

    Raises:
        ModelError: the model has no linear layers to speak of, or this machine does not multiply such weights.
    """
    head = model.get_output_embeddings()
    places = [
        (parent, name, part)
        for parent in model.modules()
        for name, part in parent.named_children()
        if type(part) is nn.Linear and part.in_features % BLOCK == 0
    ]
    if all(part is head for _, _, part in places):
        raise ModelError(
            f"the weights of `{model.config.model_type}` models cannot be compressed yet",
            hint="use them as they are",
        )
    bits, codes_as = BITS[quantization], BYTES.get(quantization, torch.int8)
    if codes_as is not torch.int8 and kernel(model.device, model.dtype, codes_as) is None:
        raise ModelError(
            f"this machine does not multiply {quantization} weights", hint="use `int8`, which takes as many bytes"
        )
    packed = dict[int, nn.Module]()
    try:
        for parent, name, part in places:
            if id(part) not in packed:
                short = bits == 4 and part is not head and part.out_features % ROWS == 0
                packed[id(part)] = one = Int4Linear(part) if short else ByteLinear(part, codes_as)
                one(torch.zeros(1, part.in_features, dtype=model.dtype, device=model.device))
            setattr(parent, name, packed[id(part)])
    except (NotImplementedError, RuntimeError) as error:
        raise ModelError(
            f"this PyTorch does not multiply weights in {bits} bits on `{model.device.type}` in {model.dtype}",
            hint="use them as they are, or try `--dtype bfloat16`",
        ) from error


def num_parameters(model: PreTrainedModel) -> int:
    """Number of weights, shared ones once."""
    whole: int = sum(weight.numel() for weight in model.parameters())
    short = [part for part in model.modules() if isinstance(part, Int4Linear)]
    return whole + sum(part.levels[..., 0].numel() * part.group - part.codes.numel() for part in short)
