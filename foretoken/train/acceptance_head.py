"""Train the acceptance head of SpecDec++: sample, label, mix, fit, calibrate, keep the best.

Reference: Huang, Guo and Wang 2024, SpecDec++, https://arxiv.org/abs/2405.19715, sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from foretoken.errors import ConfigError
from foretoken.llm import LLM
from foretoken.models.acceptance_head import AcceptanceHead, HeadShape
from foretoken.train.acceptance_data import collect, features
from foretoken.train.fitting import Progress, Training, begin, draft_of, fit, judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(Training):
    """What makes a head.

    Attributes:
        temperature: of the sampling transform acceptance is predicted for.
        mix: share of *target* tokens kept in the text the head reads; the rest are draft tokens, and carry the loss.
        depth, tied: size of the head (see `HeadShape`).
    """

    temperature: float = 0.0
    mix: float = 0.15
    reject_weight: float = 6.0
    depth: int = 3
    tied: bool = False

    def __post_init__(self) -> None:
        Training.__post_init__(self)
        if not 0 <= self.mix < 1:
            raise ConfigError(f"mix cannot be {self.mix}", hint="it is a share below 1; at 1 no token carries a loss")
        if self.depth < 0:
            raise ConfigError(f"depth cannot be {self.depth}", hint="0 is a linear probe")


def train(
    llm: LLM,
    prompts: Sequence[str],
    recipe: Recipe,
    work: Path,
    progress: Progress = lambda stage, done, of: None,
) -> AcceptanceHead:
    """Train a head for the model's draft. Interrupted and run again with the same folder, it goes on where it was.

    A tenth of the examples selects the epoch and calibrates, another tenth is only reported on. Every epoch reads a
    fresh mix of the examples.

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
    examples = collect(
        llm,
        prompts,
        recipe.sampling(recipe.temperature),
        recipe.max_new_tokens,
        recipe.seed,
        work / "examples.jsonl",
        lambda done, of: progress("sampling", done, of),
    )
    tenth = len(examples) // 10
    draft, fingerprint = draft_of(llm)
    dev = features(draft, examples[:tenth], recipe.mix, [recipe.seed, 1])
    test = features(draft, examples[tenth : 2 * tenth], recipe.mix, [recipe.seed, 2])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        head = AcceptanceHead(HeadShape(dev[0].shape[1], recipe.depth, recipe.tied), fingerprint)
    rest = examples[2 * tenth :]
    fit(head, lambda epoch: features(draft, rest, recipe.mix, [recipe.seed, 3, epoch]), dev, recipe, work, progress)
    facts = {"target": llm.target.fingerprint, "recipe": asdict(recipe), "num_examples": len(examples)}
    head.card |= facts | {"num_tokens": sum(len(example.target) for example in examples)}
    judge(head, dev, test, recipe.reject_weight)
    return head
