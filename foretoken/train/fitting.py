"""What the training of every acceptance predictor shares: epochs with checkpoints, calibration, and an honest card."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from foretoken.errors import ConfigError
from foretoken.llm import LLM
from foretoken.models.base import LanguageModel
from foretoken.models.predictor import TEMPERATURE, AcceptancePredictor
from foretoken.request import Sampling
from foretoken.train.calibration import calibrate, calibration_error, divergence, reliability
from foretoken.train.checkpoints import Checkpoints, claim
from foretoken.train.rounds import Progress, run_rounds, set_learning_rate

FEWEST_PROMPTS = 30

Part = tuple[Tensor, Tensor]  # [M, D] features and [M] labels
Piece = TypeVar("Piece")


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What every recipe has.

    Attributes:
        temperatures: acceptance is learnt at each of them, on an equal share of the prompts.
        max_new_tokens: length of the continuations sampled from the target.
        top_k, top_p, min_p: the rest of the sampling transform acceptance is predicted for (see `Sampling`).
        reject_weight: how much heavier a rejection weighs in the loss.
        epochs, learning_rate, weight_decay, batch: AdamW with warm-up and cosine decay over batches of positions.
        seed: of everything random.
    """

    temperatures: tuple[float, ...] = (0.0, 1.0)
    max_new_tokens: int = 128
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    reject_weight: float = 1.0
    epochs: int = 3
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    batch: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperatures or self.reject_weight <= 0 or self.epochs < 1:
            raise ConfigError("a recipe needs a temperature, a positive weight and an epoch", hint="see --help")

    def sampling(self, temperature: float) -> Sampling:
        """The transform as a request states it."""
        return Sampling(temperature=temperature, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p)


def begin(llm: LLM, prompts: Sequence[str], recipe: Training, work: Path, title: str) -> list[str]:
    """Check what can be checked, bind the work folder to this training, and shuffle the prompts.

    Raises:
        ConfigError: there is no draft, too few prompts, or the folder belongs to other work.
    """
    if llm.draft is None:
        raise ConfigError(f"{title} belongs to a draft model", hint="give one with `--draft`")
    if len(prompts) < FEWEST_PROMPTS:
        raise ConfigError(f"{len(prompts)} prompts are too few to train on", hint=f"give at least {FEWEST_PROMPTS}")
    shuffled = list(prompts)
    random.Random(recipe.seed).shuffle(shuffled)  # files follow one another, and the parts must be alike
    models = {"target": llm.target.fingerprint, "draft": llm.draft.fingerprint}
    claim(work, {**models, **asdict(recipe), "prompts": shuffled})
    return shuffled


def draft_of(llm: LLM) -> tuple[LanguageModel, str]:
    """The draft model and its fingerprint, of an `llm` that `begin` has seen."""
    model = llm.models[1]
    assert llm.draft is not None, "`begin` refuses this"
    assert model is not None, "`begin` refuses this"
    return model, llm.draft.fingerprint


def split(temperatures: Sequence[Sequence[Piece]]) -> tuple[list[Piece], list[Piece], list[Piece]]:
    """Of the pieces of each temperature a tenth to select by, a tenth to report on, and the rest."""
    parts: tuple[list[Piece], list[Piece], list[Piece]] = ([], [], [])
    for pieces in temperatures:
        tenth = max(len(pieces) // 10, 1)
        for part, some in zip(parts, (slice(tenth), slice(tenth, 2 * tenth), slice(2 * tenth, None)), strict=True):
            part += pieces[some]
    return parts


def fit(
    net: AcceptancePredictor,
    epoch_of: Callable[[int], Part],
    dev: Part,
    recipe: Training,
    work: Path,
    progress: Progress,
) -> None:
    """Train in place, epoch by epoch with a checkpoint each, and end with the weights that were best on `dev`.

    Args:
        net: freshly made.
        epoch_of: the data of an epoch.
        dev: what the epoch is chosen by.
        recipe: everything else.
        work: folder for checkpoints.
        progress: told when an epoch is done.
    """
    optimizer = torch.optim.AdamW(net.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)

    def one_pass(epoch: int) -> None:
        _one_pass(net.train(), optimizer, epoch_of(epoch), recipe, epoch)

    def score() -> float:
        return divergence(unweighted(net(dev[0]).detach(), recipe.reject_weight), dev[1])

    def tell(done: int, best: float) -> None:
        progress("training", done, recipe.epochs)

    best = run_rounds(net, optimizer, recipe.epochs, one_pass, score, Checkpoints(work), recipe.seed, tell)
    net.card = {"epoch": best["round"], "dev_divergence": best["score"]}
    net.requires_grad_(False)


def judge(net: AcceptancePredictor, dev: Part, test: Part, recipe: Training) -> None:
    """Calibrate on `dev`, and write into the card what the net is worth on `test`, before and after."""
    before = unweighted(net(test[0]), recipe.reject_weight)
    calibrate(net, *dev)
    after = net(test[0])
    net.card |= {
        "acceptance_rate": float(test[1].mean()),
        "divergence": divergence(after, test[1]),
        "divergence_of_mean": divergence(torch.full_like(after, float(dev[1].mean())), test[1]),
        "calibration_error_before": calibration_error(reliability(before, test[1])),
        "calibration_error": calibration_error(reliability(after, test[1])),
        "reliability_before": reliability(before, test[1]),
        "reliability": reliability(after, test[1]),
        "by_temperature": [_quality(net, test, temperature) for temperature in recipe.temperatures],
    }


def _quality(net: AcceptancePredictor, test: Part, temperature: float) -> dict[str, float]:
    """What the net is worth at one temperature."""
    here = test[0][:, TEMPERATURE] == net.heat(torch.tensor(temperature))
    guess, label = net(test[0][here]), test[1][here]
    return {
        "temperature": temperature,
        "acceptance_rate": float(label.mean()),
        "divergence": divergence(guess, label),
        "calibration_error": calibration_error(reliability(guess, label)),
    }


def _one_pass(net: AcceptancePredictor, optimizer: torch.optim.Optimizer, data: Part, of: Training, epoch: int) -> None:
    """One epoch over [M, D] features and [M] labels in shuffled batches."""
    features, labels = data
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(of.seed * 1000 + epoch))
    batches = torch.split(order, of.batch)
    for i, batch in enumerate(batches):
        set_learning_rate(optimizer, of.learning_rate, (epoch + i / len(batches)) / of.epochs)
        optimizer.zero_grad()
        weighted_loss(net.logit(features[batch]), labels[batch], of.reject_weight).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def weighted_loss(logit: Tensor, label: Tensor, reject_weight: float) -> Tensor:
    """Soft-label cross-entropy with rejections weighted, over the sum of the weights.

    Its minimum for one state with mean label a and weight w is a / (a + w (1 - a)).

    Args:
        logit: [M] float. Log-odds of acceptance.
        label: [M] float. Acceptance probabilities.
        reject_weight: w.
    """
    accept = -label * torch.nn.functional.logsigmoid(logit)
    reject = -reject_weight * (1 - label) * torch.nn.functional.logsigmoid(-logit)
    return (accept + reject).sum() / (label + reject_weight * (1 - label)).sum()


def unweighted(probability: Tensor, reject_weight: float) -> Tensor:
    """Undo the weight: what the weighted minimum says about a is w s / (w s + 1 - s)."""
    raised = reject_weight * probability
    return raised / (raised + 1 - probability)
