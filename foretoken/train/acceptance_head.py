"""Train the acceptance head of SpecDec++: sample, label, mix, fit, calibrate, keep the best.

Reference: Huang, Guo and Wang 2024, SpecDec++, https://arxiv.org/abs/2405.19715, sections 3 and 4.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foretoken.errors import ConfigError
from foretoken.llm import LLM
from foretoken.models.acceptance_head import AcceptanceHead, HeadShape
from foretoken.models.base import LanguageModel
from foretoken.request import Sampling
from foretoken.train.acceptance_data import Example, collect, features
from foretoken.train.calibration import calibrate, calibration_error, divergence, reliability

WARM_UP = 0.03  # share of the training spent raising the learning rate
FEWEST_PROMPTS = 30

Progress = Callable[[str, int, int], None]
Part = tuple[Tensor, Tensor]  # [M, H] states and [M] labels


@dataclass(frozen=True, slots=True)
class Recipe:
    """What makes a head.

    Attributes:
        max_new_tokens: length of the continuations sampled from the target.
        temperature, top_k, top_p, min_p: the sampling transform acceptance is predicted for (see `Sampling`).
        mix: share of *target* tokens kept in the text the head reads; the rest are draft tokens, and carry the loss.
        reject_weight: how much heavier a rejection weighs in the loss.
        depth, tied: size of the head (see `HeadShape`).
        epochs, learning_rate, batch: AdamW with warm-up and cosine decay over batches of positions.
        seed: of everything random.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    mix: float = 0.15
    reject_weight: float = 6.0
    depth: int = 3
    tied: bool = False
    epochs: int = 3
    learning_rate: float = 1e-3
    batch: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.mix < 1:
            raise ConfigError(f"mix cannot be {self.mix}", hint="it is a share below 1; at 1 no token carries a loss")
        if self.reject_weight <= 0 or self.epochs < 1 or self.depth < 0:
            raise ConfigError("a recipe needs a positive weight, an epoch, and a depth of 0 or more", hint="see --help")

    @property
    def sampling(self) -> Sampling:
        """The transform as a request states it."""
        return Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p)


def train(
    llm: LLM,
    prompts: Sequence[str],
    recipe: Recipe,
    work: Path,
    progress: Progress = lambda stage, done, of: None,
) -> AcceptanceHead:
    """Train a head for the model's draft. Interrupted and run again with the same folder, it goes on where it was.

    A tenth of the examples selects the epoch and calibrates, another tenth is only reported on.

    Args:
        llm: target and draft.
        prompts: what the target continues, at least 30.
        recipe: everything else.
        work: folder for data and checkpoints.
        progress: told the stage, how much of it is done, and of how much.

    Returns:
        The head of the best epoch by divergence on the selection examples, calibrated, its card filled.

    Raises:
        ConfigError: there is no draft, too few prompts, or the folder belongs to other work.
    """
    if llm.draft is None:
        raise ConfigError("an acceptance head belongs to a draft model", hint="give one with `--draft`")
    if len(prompts) < FEWEST_PROMPTS:
        raise ConfigError(f"{len(prompts)} prompts are too few to train on", hint=f"give at least {FEWEST_PROMPTS}")
    prompts = list(prompts)
    random.Random(recipe.seed).shuffle(prompts)  # files follow one another, and the parts must be alike
    models = {"target": llm.target.fingerprint, "draft": llm.draft.fingerprint}
    _claim(work, {**models, **asdict(recipe), "prompts": prompts})
    examples = collect(
        llm,
        prompts,
        recipe.sampling,
        recipe.max_new_tokens,
        recipe.seed,
        work / "examples.jsonl",
        lambda done, of: progress("sampling", done, of),
    )
    tenth = len(examples) // 10
    draft = llm.models[1]
    assert draft is not None, "llm.draft is"
    dev = features(draft, examples[:tenth], recipe.mix, [recipe.seed, 1])
    test = features(draft, examples[tenth : 2 * tenth], recipe.mix, [recipe.seed, 2])
    head = fit(draft, llm.draft.fingerprint, examples[2 * tenth :], dev, recipe, work, progress)
    facts = {"target": llm.target.fingerprint, "recipe": asdict(recipe), "num_examples": len(examples)}
    head.card |= facts | {"num_tokens": sum(len(example.target) for example in examples)}
    _judge(head, dev, test, recipe.reject_weight)
    return head


def _judge(head: AcceptanceHead, dev: Part, test: Part, reject_weight: float) -> None:
    """Calibrate on `dev`, and write into the card what the head is worth on `test`, before and after."""
    before = unweighted(head(test[0]), reject_weight)
    calibrate(head, *dev)
    after = head(test[0])
    head.card |= {
        "acceptance_rate": float(test[1].mean()),
        "divergence": divergence(after, test[1]),
        "divergence_of_mean": divergence(torch.full_like(after, float(dev[1].mean())), test[1]),
        "calibration_error_before": calibration_error(reliability(before, test[1])),
        "calibration_error": calibration_error(reliability(after, test[1])),
        "reliability_before": reliability(before, test[1]),
        "reliability": reliability(after, test[1]),
    }


def fit(
    draft: LanguageModel,
    fingerprint: str,
    examples: Sequence[Example],
    dev: Part,
    recipe: Recipe,
    work: Path,
    progress: Progress,
) -> AcceptanceHead:
    """Train epoch by epoch, each with a fresh mix of the examples and a checkpoint, and return the best on `dev`.

    Args:
        draft: reads the mixed texts.
        fingerprint: of the draft, which the head is bound to.
        examples: to train on.
        dev: [M, H] states and [M] labels to select by.
        recipe: everything else.
        work: folder for checkpoints.
        progress: told when an epoch is done.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        head = AcceptanceHead(HeadShape(dev[0].shape[1], recipe.depth, recipe.tied), fingerprint)
    optimizer = torch.optim.AdamW(head.parameters(), recipe.learning_rate)
    best: dict[str, Any] = {"dev_divergence": math.inf}
    for epoch in range(recipe.epochs):
        path = work / f"epoch-{epoch}.pt"
        state = _read_checkpoint(path)
        if state is None:
            _one_pass(head, optimizer, features(draft, examples, recipe.mix, [recipe.seed, 3, epoch]), recipe, epoch)
            quality = divergence(unweighted(head(dev[0]).detach(), recipe.reject_weight), dev[1])
            weights = {name: value.clone() for name, value in head.state_dict().items()}
            state = {"head": weights, "optimizer": optimizer.state_dict(), "dev_divergence": quality, "epoch": epoch}
            torch.save(state, path.with_suffix(".part"))
            os.replace(path.with_suffix(".part"), path)
        head.load_state_dict(state["head"])
        optimizer.load_state_dict(state["optimizer"])
        best = min(best, state, key=lambda one: float(one["dev_divergence"]))
        progress("training", epoch + 1, recipe.epochs)
    head.load_state_dict(best["head"])
    head.card = {"epoch": best["epoch"], "dev_divergence": best["dev_divergence"]}
    return head.eval().requires_grad_(False)


def _one_pass(head: AcceptanceHead, optimizer: torch.optim.Optimizer, data: Part, recipe: Recipe, epoch: int) -> None:
    """One epoch over [M, H] states and [M] labels in shuffled batches."""
    states, labels = data
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(recipe.seed * 1000 + epoch))
    batches = torch.split(order, recipe.batch)
    for i, batch in enumerate(batches):
        done = (epoch + i / len(batches)) / recipe.epochs
        rate = done / WARM_UP if done < WARM_UP else (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * max(rate, 1e-3)
        optimizer.zero_grad()
        weighted_loss(head.logit(states[batch]), labels[batch], recipe.reject_weight).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _read_checkpoint(path: Path) -> dict[str, Any] | None:
    """A finished epoch, or None where there is none that can be read."""
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
        return state
    except Exception:  # a broken archive raises many kinds; the epoch is trained again
        return None


def _claim(work: Path, identity: dict[str, Any]) -> None:
    """Bind a work folder to one training, so that resuming never mixes two.

    Raises:
        ConfigError: it belongs to another one.
    """
    work.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    mark = work / "identity"
    if mark.is_file() and mark.read_text() != digest:
        raise ConfigError(f"`{work}` holds another training", hint="give another folder, or remove this one")
    mark.write_text(digest)


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
