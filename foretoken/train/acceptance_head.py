"""Train the acceptance head of SpecDec++: sample, label, mix, fit, calibrate, keep the best.

Reference: Huang, Guo and Wang 2024, SpecDec++, https://arxiv.org/abs/2405.19715, sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from foretoken.errors import ConfigError
from foretoken.llm import LLM
from foretoken.models.acceptance_head import AcceptanceHead, HeadShape
from foretoken.train.acceptance_data import collect_each, features, provenance
from foretoken.train.calibration import calibration_error, divergence, reliability
from foretoken.train.fitting import Part, Training, begin, draft_of, fit, judge, split
from foretoken.train.rounds import Progress, silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(Training):
    """What makes a head.

    Attributes:
        mix: share of *target* tokens kept in the text the head reads; the rest are draft tokens, and carry the loss.
        depth, tied: size of the head (see `HeadShape`).
        dropout: share of the hidden state withheld while training, or the head trusts it too much on other texts.
    """

    mix: float = 0.15
    reject_weight: float = 1.0
    epochs: int = 6
    weight_decay: float = 0.1
    depth: int = 1
    tied: bool = False
    dropout: float = 0.5

    def __post_init__(self) -> None:
        Training.__post_init__(self)
        if not 0 <= self.mix < 1:
            raise ConfigError(f"mix cannot be {self.mix}", hint="it is a share below 1; at 1 no token carries a loss")
        if self.depth < 0:
            raise ConfigError(f"depth cannot be {self.depth}", hint="0 is a linear probe")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout cannot be {self.dropout}", hint="it is a share below 1")


def train(
    llm: LLM,
    prompts: Sequence[str],
    recipe: Recipe,
    work: Path,
    progress: Progress = silent,
) -> AcceptanceHead:
    """Train a head for the model's draft. Interrupted and run again with the same folder, it goes on where it was.

    Of each temperature a tenth of the examples selects the epoch and calibrates, another tenth is only reported on.
    Every epoch reads a fresh mix of the examples.

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
    prompts = begin(llm, prompts, recipe, work, "an acceptance head")
    examples = collect_each(llm, prompts, recipe, work, progress)
    draft, fingerprint = draft_of(llm)
    parts = split(examples)
    dev, test = (features(draft, parts[i], recipe.mix, [recipe.seed, 1 + i]) for i in (0, 1))

    def epoch_of(epoch: int) -> Part:
        return first if epoch == 0 else features(draft, parts[2], recipe.mix, [recipe.seed, 3, epoch])

    first = features(draft, parts[2], recipe.mix, [recipe.seed, 3, 0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        head = AcceptanceHead(HeadShape(dev[0].shape[1] - 2, recipe.depth, recipe.tied), fingerprint)
    head.dropout = recipe.dropout
    head.standardize(first[0])
    fit_glance(head, *first)
    fit(head, epoch_of, dev, recipe, work, progress)
    head.card |= provenance(llm, recipe, examples)
    judge(head, dev, test, recipe)
    glance = torch.sigmoid(head.glance_logit(test[0]))
    head.card["glance"] = {
        "divergence": divergence(glance, test[1]),
        "calibration_error": calibration_error(reliability(glance, test[1])),
    }
    return head


def fit_glance(head: AcceptanceHead, features: Tensor, labels: Tensor) -> None:
    """Fit what the head says of a token without its state, a logistic regression, and start the whole there, in place.

    Few steps of training would not take the weights of the probability as far as they have to go.
    """
    weights = list(head.look.parameters())
    solver = torch.optim.LBFGS(weights, max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(head.glance_logit(features), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(closure)  # type: ignore[no-untyped-call]
    head.look.requires_grad_(False)
    with torch.no_grad():
        head.out.weight[:, -2:] = head.look.weight
        head.out.bias.copy_(head.look.bias)
