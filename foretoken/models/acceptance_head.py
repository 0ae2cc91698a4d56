"""The acceptance-prediction head of SpecDec++: what a draft knows of a token -> chance that the target keeps it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from foretoken.models.predictor import HOTTEST, TEMPERATURE, AcceptancePredictor, probability
from foretoken.types import Frontier

ODDS = -2  # column of the features
CLOSEST = 1e-4  # probabilities nearer to 0 or 1 are taken for this one
COLDER = -0.7  # how the weight of the log-odds starts to change with the temperature


@dataclass(frozen=True, slots=True)
class HeadShape:
    """Size of a head.

    Attributes:
        hidden_size: width of the draft's hidden state.
        depth: residual blocks; 0 is a linear probe.
        tied: all blocks share one set of weights, as in the authors' released code.
    """

    hidden_size: int
    depth: int = 1
    tied: bool = False


class AcceptanceHead(AcceptancePredictor):
    """Residual blocks z <- z + SiLU(W z + b) over the hidden state, then log-odds that are linear in the temperature.

    It reads D = `hidden_size` + 2 numbers, see `describe`. A fresh head says what the draft's own
    probability of the token says; training starts from the best that says without the state, and the state corrects it.

    Reference: Huang, Guo and Wang 2024, SpecDec++, https://arxiv.org/abs/2405.19715. The paper's two output logits are
    one here, the same function. Probability and temperature are ours: the draft's own probability tells more about
    acceptance than the state does, both together most, and what is accepted depends on the temperature.

    Attributes:
        dropout: share of the state that is hidden while training.
    """

    title: ClassVar[str] = "acceptance head"
    command: ClassVar[str] = "foretoken train acceptance-head"
    file_name: ClassVar[str] = "acceptance_head.safetensors"
    Shape: ClassVar[type[HeadShape]] = HeadShape
    center: Tensor
    spread: Tensor

    def __init__(self, shape: HeadShape, draft: str = "", card: dict[str, Any] | None = None) -> None:
        super().__init__(shape, draft, card)
        self.dropout = 0.0
        count = min(shape.depth, 1) if shape.tied else shape.depth
        self.register_buffer("center", torch.zeros(shape.hidden_size))
        self.register_buffer("spread", torch.ones(shape.hidden_size))
        self.blocks = nn.ModuleList(nn.Linear(shape.hidden_size, shape.hidden_size) for _ in range(count))
        self.out = nn.Linear(shape.hidden_size + 2, 2)
        self.look = nn.Linear(2, 2)
        for layer in (self.out, self.look):
            nn.init.zeros_(layer.bias)
            nn.init.zeros_(layer.weight)
            with torch.no_grad():
                layer.weight[:, -2] = torch.tensor([1.0, COLDER])

    @staticmethod
    def describe(hidden: Tensor, prob: Tensor, temperature: Tensor) -> Tensor:
        """What the head sees of a drawn token.

        Args:
            hidden: [..., H] float. The draft's last hidden state at the position whose *input* is the token.
            prob: [...] float. The draft's probability of it, before sampling parameters.
            temperature: [...] float. Of the request.

        Returns:
            [..., D] float32. The state, the log-odds of the probability, the temperature.
        """
        rest = [torch.logit(prob.float(), CLOSEST), AcceptancePredictor.heat(temperature)]
        return torch.cat([hidden.float(), torch.stack(rest, -1)], -1)

    def standardize(self, features: Tensor) -> None:
        """Measure mean and spread of the state on training data: its raw scale makes training unstable.

        Args:
            features: [M, D] float32.
        """
        spread, center = torch.std_mean(features[:, :ODDS], 0)
        self.center.copy_(center)
        self.spread.copy_(spread.clamp_min(1e-6))

    def logit(self, features: Tensor) -> Tensor:
        state = (features[..., :ODDS].float() - self.center) / self.spread
        if self.training:
            state = functional.dropout(state, self.dropout)
        for block in self.sequence:
            state = state + functional.silu(block(state))
        return _weigh(self.out, features[..., TEMPERATURE], features[..., ODDS : ODDS + 1], state)

    @property
    def sequence(self) -> list[Any]:
        """All blocks in order, a tied one again and again."""
        return [self.blocks[0 if self.shape.tied else step] for step in range(self.shape.depth)]

    def read(self, hidden: Tensor) -> Tensor:
        """All that `judge` needs of states ([..., H] float, as in `describe` -> [..., 2] float32)."""
        return self._ready.read(hidden)

    def heard(self, frontier: Frontier, rows: slice = slice(None)) -> Tensor | None:
        """What `read` gives for the leaf of each row ([B, 2] float32): found with the token, or now; None at the root.

        Args:
            frontier: one leaf per row.
            rows: which.
        """
        if frontier.seen is not None:
            return frontier.seen[rows, 0]
        return None if frontier.hidden is None else self.read(frontier.hidden[rows, 0])

    def judge(self, read: Tensor, probs: Sequence[float], temperatures: Sequence[float]) -> list[float]:
        """Probability that each row's token is accepted: what calling the head on `describe` says, with less work.

        Args:
            read: [B, 2] float. As `read` gives it.
            probs: the draft's probability of each token, before sampling parameters.
            temperatures: of the requests.
        """
        return self.chances(self._ready.judge(read.tolist(), probs, temperatures))

    def glance(self, prob: float, temperature: float) -> float:
        """Probability that a token is accepted which the draft has drawn and not read yet, so that there is no state.

        Args:
            prob: the draft's probability of it, before sampling parameters.
            temperature: of the request.
        """
        return probability(self._ready.glance(prob, temperature))

    @cached_property
    def _ready(self) -> _Ready:
        return _Ready(self)

    def glance_logit(self, features: Tensor) -> Tensor:
        """Log-odds of acceptance from probability and temperature alone.

        Args:
            features: [..., D] float32. Only the last two columns are read.

        Returns:
            [...] float32.
        """
        return _weigh(self.look, features[..., TEMPERATURE], features[..., ODDS : ODDS + 1])


class _Ready:
    """A trained head made ready for tokens that come one by one, where an operation costs as much as its arithmetic.

    What reads numbers works with numbers, since a draft's probabilities are on the host.

    Args:
        head: its weights are final.
    """

    def __init__(self, head: AcceptanceHead) -> None:
        out, look = head.out.weight.detach(), head.look
        self._spread, self._center = 1 / head.spread, -head.center / head.spread
        self._blocks = [(block.weight.detach().t(), block.bias.detach()) for block in head.sequence]
        self._weight, self._bias = out[:, :ODDS].t().contiguous(), head.out.bias.detach()
        self._own, self._look, self._level = out[:, ODDS:].tolist(), look.weight.tolist(), look.bias.tolist()

    def read(self, hidden: Tensor) -> Tensor:
        """See `AcceptanceHead.read`."""
        state = torch.addcmul(self._center, hidden.flatten(0, -2).float(), self._spread)
        for weight, bias in self._blocks:
            state += functional.silu(torch.addmm(bias, state, weight), inplace=True)
        return torch.addmm(self._bias, state, self._weight).reshape(*hidden.shape[:-1], -1)

    def judge(self, read: list[list[float]], probs: Sequence[float], temperatures: Sequence[float]) -> list[float]:
        """Uncalibrated log-odds; see `AcceptanceHead.judge`."""
        return [_weigh_one(self._own, *one) for one in zip(read, probs, temperatures, strict=True)]

    def glance(self, prob: float, temperature: float) -> float:
        """Log-odds; see `AcceptanceHead.glance`."""
        return _weigh_one(self._look, self._level, prob, temperature)


def _weigh_one(weights: list[list[float]], read: list[float], prob: float, temperature: float) -> float:
    """As `_weigh`, of one token, given what was read of its state."""
    bounded = min(max(prob, CLOSEST), 1 - CLOSEST)
    odds = math.log(bounded / (1 - bounded))
    flat, warm = (base + a * odds + b * bounded for base, (a, b) in zip(read, weights, strict=True))
    return flat + warm * min(temperature, HOTTEST)


def _weigh(layer: nn.Linear, heat: Tensor, odds: Tensor, *state: Tensor) -> Tensor:
    """Log-odds, linear in the temperature, from state, log-odds of the draft's probability, and the probability.

    Args:
        layer: what both coefficients are read by.
        heat: [...] float32. Temperature.
        odds: [..., 1] float32. Log-odds of the draft's probability.
        state: the standardized state, [..., H] float32, or nothing.

    Returns:
        [...] float32.
    """
    read = functional.linear(torch.cat([*state, odds, odds.sigmoid()], -1), layer.weight, layer.bias)
    return torch.addcmul(read[..., 0], read[..., 1], heat)
