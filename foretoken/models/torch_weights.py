"""Weights in 8 bits on PyTorch, unpacked inside its own matrix product: less to read per token."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from foretoken.errors import ModelError

LEVELS = 127  # on either side of zero
BLOCK = 32  # what the product reads at once: a row of another size would be read beyond its end


class Int8Linear(nn.Module):
    """A linear layer whose weights are codes times a scale per row.

    Args:
        linear: what it stands for.
    """

    scales: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scales = weight.float().abs().amax(1) / LEVELS
        # As short as it is used, or the codes would be those of another scale.
        scales = torch.where(scales == 0, 1, scales).to(weight.dtype)
        codes = (weight.float() / scales.float()[:, None]).round().clamp(-LEVELS, LEVELS)
        self.codes = nn.Parameter(codes.to(torch.int8), requires_grad=False)
        self.register_buffer("scales", scales)
        self.bias = linear.bias

    @property
    def weight(self) -> Tensor:
        """[out, in] float. What it computes with, unpacked."""
        return self.codes.to(self.scales.dtype) * self.scales[:, None]

    def forward(self, given: Tensor) -> Tensor:
        """[..., in] float -> [..., out] float."""
        flat = given.reshape(-1, given.shape[-1]).contiguous()
        out = torch._weight_int8pack_mm(flat, self.codes, self.scales)
        return (out if self.bias is None else out + self.bias).reshape(*given.shape[:-1], -1)


def compress(model: PreTrainedModel) -> None:
    """Put 8-bit layers where a model has linear ones, the output embedding included.

    Layers whose width is no multiple of 32 stay as they are, which those of large models hardly ever are. An input
    embedding that shares its weights with the output embedding keeps them as they were.

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
    packed = {id(part): Int8Linear(part) for _, _, part in places}
    for parent, name, part in places:
        setattr(parent, name, packed[id(part)])
    one = packed[id(places[0][2])]
    try:
        one(torch.zeros(1, one.codes.shape[1], dtype=model.dtype, device=model.device))
    except (NotImplementedError, RuntimeError) as error:
        raise ModelError(
            f"this PyTorch does not multiply weights in 8 bits on `{model.device.type}`", hint="use them as they are"
        ) from error
