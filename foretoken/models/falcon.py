"""A small network behind a target's last hidden states that says several tokens in one forward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from foretoken.models.bound import BoundNet
from foretoken.models.cache import TensorCache

HEAD = 64  # numbers per attention head
LONGEST = 10000.0  # wavelength of the slowest rotation, over 2 pi


@dataclass(frozen=True, slots=True)
class FalconShape:
    """Size of the network.

    Attributes:
        hidden_size: width of the target's hidden state.
        vocab_size: number of its logits.
        block: tokens said per forward.
        width: of the network: even, and above 64 a multiple of it.
    """

    hidden_size: int
    vocab_size: int
    block: int = 2
    width: int = 384


class FalconHead(BoundNet):
    """Says the target's hidden states of a whole block of places that it has not read yet, k of them at once.

    What it reads are pairs: the target's state at a place and the token that was chosen there, which is the next one of
    the text. The pair of a place speaks of the state k places later. Pairs stand in blocks of k, and one sees all pairs
    of its own block and of those before it. Where no states of the target are known, it reads those it has said
    itself, with the tokens drawn from them. States are turned into logits by a frozen copy of the target's output
    embedding, which also says how tokens are read.

    A linear layer reads a pair, and one Transformer layer looks over what it made of all that may be seen. So what is
    kept of a pair does not depend on the block it stands in, and blocks may begin anywhere. A pair that speaks is told
    its place in the block, by a learnt vector, and of the newest pair there, by a matrix; attention alone takes long to
    learn where to look.

    Reference: Gao et al. 2024, Falcon, https://arxiv.org/abs/2412.12639. The paper reads pairs by two LSTM layers; a
    recurrent layer learnt more slowly here than the linear one (see `docs/training-results.md`).

    Attributes:
        scale: [] float. Spread of the target's states.
        spread: [] float. Spread of its output embedding.
    """

    title: ClassVar[str] = "semi-autoregressive head"
    role: ClassVar[str] = "target"
    command: ClassVar[str] = "foretoken train falcon"
    instead: ClassVar[str] = "choose another `--draft`"
    file_name: ClassVar[str] = "falcon.safetensors"
    Shape: ClassVar[type[FalconShape]] = FalconShape
    output: Tensor
    scale: Tensor
    spread: Tensor

    def __init__(self, shape: FalconShape, target: str = "", card: dict[str, Any] | None = None) -> None:
        super().__init__(shape, target, card)
        width = shape.width
        self.register_buffer("output", torch.zeros(shape.vocab_size, shape.hidden_size))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("spread", torch.ones(()))
        self.fuse = nn.Linear(2 * shape.hidden_size, width)
        self.newest = nn.Linear(width, width, bias=False)
        self.places = nn.Parameter(torch.zeros(shape.block, width))
        self.before = nn.LayerNorm(width)
        self.query, self.key, self.value, self.mix = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.between = nn.LayerNorm(width)
        self.into, self.out = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.after = nn.LayerNorm(width)
        self.say = nn.Linear(width, shape.hidden_size)

    def new_cache(self, rows: int) -> TensorCache:
        """An empty cache of that many rows, for the keys and values of pairs."""
        return TensorCache(1, rows)

    def read(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Read pairs.

        Args:
            states: [R, N, H] float. Of the target, or said here.
            tokens: [R, N] int64. Chosen at these places.

        Returns:
            [R, N, M] float. What was read of each.
        """
        # Both are brought to a spread of 1; an output embedding's numbers are far smaller than a state's.
        pairs = torch.cat([states.to(self.output) / self.scale, self.output[tokens] / self.spread], -1)
        heard: Tensor = self.fuse(pairs)
        return heard

    def keys(self, heard: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of pairs.

        Args:
            heard: [R, N, M] float. What was read of them.
            positions: [R, N] int64. Their places in the text.

        Returns:
            [R, heads, N, dim] float. Keys.
            [R, heads, N, dim] float. Values.
        """
        normed = self.before(heard)
        return rotated(self._split(self.key(normed)), positions), self._split(self.value(normed))

    def speak(self, heard: Tensor, positions: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """States k places after those of pairs.

        Args:
            heard: [R, Q, M] float. What was read of the pairs that speak, block after block.
            positions: [R, Q] int64. Their places in the text.
            keys: [R, heads, T, dim] float. Of pairs that may be seen.
            values: [R, heads, T, dim] float. Of the same.
            mask: [R, 1, Q, T] bool or float. Which of them each one sees, or what is added to its scores.

        Returns:
            [R, Q, H] float. As large as the target's.
        """
        blocks = heard.reshape(len(heard), -1, self.shape.block, self.shape.width)
        x = (blocks + self.newest(blocks[:, :, -1:]) + self.places).flatten(1, 2)
        query = rotated(self._split(self.query(self.before(x))), positions)
        seen = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        x = x + self.mix(seen.transpose(1, 2).flatten(2))
        x = x + self.out(functional.silu(self.into(self.between(x))))
        said: Tensor = self.say(self.after(x)) * self.scale
        return said

    def logits(self, states: Tensor) -> Tensor:
        """What the target's output embedding makes of states ([..., H] float -> [..., V] float)."""
        return functional.linear(states, self.output)

    def _split(self, x: Tensor) -> Tensor:
        """Numbers of each attention head apart."""
        heads = max(self.shape.width // HEAD, 1)
        return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def rotated(x: Tensor, positions: Tensor) -> Tensor:
    """Queries or keys turned by their positions, so that products depend on distances.

    Args:
        x: [R, heads, N, dim] float.
        positions: [R, N] int64.

    Returns:
        [R, heads, N, dim] float.

    Reference: Su et al. 2021, RoFormer, https://arxiv.org/abs/2104.09864.
    """
    half = x.shape[-1] // 2
    speed = LONGEST ** (-torch.arange(half, dtype=x.dtype, device=x.device) / half)
    angle = positions[:, None, :, None] * speed
    one, other = x[..., :half], x[..., half:]
    return torch.cat([one * angle.cos() - other * angle.sin(), other * angle.cos() + one * angle.sin()], -1)
