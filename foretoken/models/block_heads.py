"""Parallel heads on a target's last hidden state, and the two small models that rescore what they propose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from foretoken.models.bound import BoundNet
from foretoken.models.ngram import NGram


@dataclass(frozen=True, slots=True)
class BlockShape:
    """Size of the heads and of their rescorers.

    Attributes:
        hidden_size: width of the target's hidden state.
        vocab_size: number of its logits.
        heads: tokens drafted at most.
        width: of each head's hidden layer.
        memory: width of the small recurrent model.
        grams: tables of the n-gram model (see `NGram`); its order is one more than there are of them.
        rescore: the better way on held-out text: "none", "ngram" or "neural".
        weight: and the best weight of its rescorer there.
        top: and the best number of candidates per place.
    """

    hidden_size: int
    vocab_size: int
    heads: int = 4
    width: int = 768
    memory: int = 192
    grams: tuple[tuple[int, int], ...] = ()
    rescore: str = "none"
    weight: float = 1.0
    top: int = 8

    def __post_init__(self) -> None:
        # From a file they come as lists.
        object.__setattr__(self, "grams", tuple((grams, contexts) for grams, contexts in self.grams))


class BlockHeads(BoundNet):
    """Head j says what comes j tokens after the next one: h + U SiLU(W h), read by the target's own output embedding.

    The target itself says the next token, so with it a block is `heads` + 1 tokens long. The output embedding is a
    frozen copy, which spares the backends from handing theirs out. The small recurrent model starts from the
    target's state and reads the block's tokens, to say which of the heads' candidates go together.

    Reference: Stern et al. 2018, Blockwise Parallel Decoding, https://arxiv.org/abs/1811.03115; rescoring after Kim et
    al. 2024, Exploring and Improving Drafts in Blockwise Parallel Decoding, https://arxiv.org/abs/2404.09221.
    """

    title: ClassVar[str] = "block of parallel heads"
    role: ClassVar[str] = "target"
    command: ClassVar[str] = "foretoken train blockwise"
    instead: ClassVar[str] = "choose another `--draft`"
    file_name: ClassVar[str] = "blockwise.safetensors"
    Shape: ClassVar[type[BlockShape]] = BlockShape
    output: Tensor
    spread: Tensor

    def __init__(self, shape: BlockShape, target: str = "", card: dict[str, Any] | None = None) -> None:
        super().__init__(shape, target, card)
        self.register_buffer("output", torch.zeros(shape.vocab_size, shape.hidden_size))
        self.register_buffer("spread", torch.ones(()))
        self.into = nn.ModuleList(nn.Linear(shape.hidden_size, shape.width) for _ in range(shape.heads))
        self.out = nn.ModuleList(nn.Linear(shape.width, shape.hidden_size) for _ in range(shape.heads))
        self.begin = nn.Linear(shape.hidden_size, shape.memory)
        self.cell = nn.GRUCell(shape.hidden_size, shape.memory)
        self.say = nn.Linear(shape.memory, shape.hidden_size)
        self.ngram = NGram(shape.vocab_size, shape.grams)
        for weights in self.out.parameters():
            nn.init.zeros_(weights)

    def head(self, hidden: Tensor, number: int) -> Tensor:
        """Logits of one head.

        Args:
            hidden: [..., H] float. The target's state at the newest token it has read.
            number: which head; 0 speaks of the second token after that one.

        Returns:
            [..., V] float, of the weights' dtype.
        """
        hidden = hidden.to(self.output.dtype)
        state = hidden + self.out[number](functional.silu(self.into[number](hidden)))
        return functional.linear(state, self.output)

    def remember(self, hidden: Tensor) -> Tensor:
        """State of the small recurrent model before it reads a block ([..., H] float -> [..., M] float)."""
        return torch.tanh(self.begin(hidden.to(self.output.dtype)))

    def read(self, memory: Tensor, token: Tensor) -> Tensor:
        """The small model reads a token.

        Args:
            memory: [B, M] float. Its state.
            token: [B] int64.

        Returns:
            [B, M] float. Its state after.
        """
        # An output embedding's numbers are far smaller than a state's, and would hardly be heard beside it.
        after: Tensor = self.cell(self.output[token] / self.spread, memory)
        return after

    def expect(self, memory: Tensor) -> Tensor:
        """What the small model expects next.

        Args:
            memory: [..., M] float. Its state.

        Returns:
            [..., V] float. Logits.
        """
        return functional.linear(self.say(memory), self.output)
