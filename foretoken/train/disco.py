"""Train DISCO's classifier: sample, label, describe, fit, calibrate, keep the best.

Reference: Mamou et al. 2024, DISCO, https://arxiv.org/abs/2405.04304. There labels are matches of greedy tokens; here
they are acceptance probabilities, which are right at any temperature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from foretoken.errors import ConfigError
from foretoken.llm import LLM
from foretoken.models.base import LanguageModel
from foretoken.models.disco_classifier import DEPTH, ClassifierShape, DiscoClassifier
from foretoken.train.acceptance_data import Example, collect_each, provenance, read_once
from foretoken.train.fitting import Part, Training, begin, draft_of, fit, judge, split
from foretoken.train.rounds import Progress, silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(Training):
    """What makes a classifier.

    Attributes:
        most: depths up to this are trained on.
        top, hidden: size of the classifier (see `ClassifierShape`).
    """

    epochs: int = 10
    learning_rate: float = 3e-3
    most: int = 20
    top: int = 10
    hidden: int = 64

    def __post_init__(self) -> None:
        Training.__post_init__(self)
        if min(self.most, self.top, self.hidden) < 1:
            raise ConfigError("a classifier needs sizes of 1 or more", hint="see --help")


def train(
    llm: LLM,
    prompts: Sequence[str],
    recipe: Recipe,
    work: Path,
    progress: Progress = silent,
) -> DiscoClassifier:
    """Train a classifier for the model's draft. Run again with the same folder, it goes on where it was.

    Of each temperature a tenth of the examples selects the epoch and calibrates, another tenth is only reported on.
    Every epoch places the tokens at fresh depths.

    Args:
        llm: target and draft.
        prompts: what the target continues, at least 30.
        recipe: everything else.
        work: folder for data and checkpoints.
        progress: told the stage, how much of it is done, and of how much.

    Returns:
        The classifier of the best epoch by divergence on the selection examples, calibrated, its card filled.

    Raises:
        ConfigError: there is no draft, too few prompts, or the folder belongs to other work.
    """
    prompts = begin(llm, prompts, recipe, work, "a DISCO classifier")
    examples = collect_each(llm, prompts, recipe, work, progress)
    draft, fingerprint = draft_of(llm)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        net = DiscoClassifier(ClassifierShape(recipe.top, recipe.hidden), fingerprint)
    parts = split([described(net, draft, some) for some in examples])
    dev, test = (_placed(parts[i], recipe, [i]) for i in (0, 1))
    fit(net, lambda epoch: _placed(parts[2], recipe, [2, epoch]), dev, recipe, work, progress)
    net.card |= provenance(llm, recipe, examples)
    judge(net, dev, test, recipe)
    return net


def described(net: DiscoClassifier, draft: LanguageModel, examples: Sequence[Example]) -> list[Part]:
    """Features, all at depth 1, and labels of every position of the target's continuations, example by example.

    The target's own text is the right context: a candidate is judged only after those before it were accepted, and
    accepted text has the target's distribution.
    """
    parts = []
    for example in examples:
        logits = read_once(draft, [*example.prompt, *example.target]).logits[0, len(example.prompt) - 1 : -1]  # [n, V]
        token = torch.tensor(example.draft, device=logits.device)[:, None]
        prob = logits.softmax(-1).gather(-1, token)[:, 0]
        heat = torch.full_like(prob, example.temperature)
        seen = net.describe(logits, prob, torch.ones_like(token[:, 0]), heat)
        parts.append((seen.cpu(), torch.tensor(example.labels)))
    return parts


def depths(labels: Sequence[float], most: int, rng: np.random.Generator) -> list[int]:
    """A possible depth in its round for every position: any start of a round since the last rejection is as likely.

    Args:
        labels: acceptance probabilities along a continuation.
        most: greatest depth.
        rng: decides what is rejected, and the starts.
    """
    found, run = [], 0
    for label, coin, start in zip(labels, rng.random(len(labels)), rng.random(len(labels)), strict=True):
        found.append(1 + int(start * min(run + 1, most)))
        run = run + 1 if coin < label else 0
    return found


def _placed(parts: Sequence[Part], recipe: Recipe, salt: list[int]) -> Part:
    """[M, D] features and [M] labels of some examples, each position at a random depth."""
    rng = np.random.default_rng([recipe.seed, *salt])
    found = [torch.tensor(depths(labels.tolist(), recipe.most, rng)) for _, labels in parts]
    features = torch.cat([seen for seen, _ in parts])
    features[:, DEPTH] = torch.cat(found).float().log()
    return features, torch.cat([labels for _, labels in parts])
