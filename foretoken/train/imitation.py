"""Teach a draft to say what its target would: DistillSpec, and sequence-level distillation as FastDraft does it.

References: Zhou et al. 2024, DistillSpec, https://arxiv.org/abs/2310.08461;
Zafrir et al. 2024, FastDraft, https://arxiv.org/abs/2411.11055.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from foretoken.errors import ConfigError
from foretoken.train.agreement import Text, agreement, alike, padded, scores
from foretoken.train.answers import said_by
from foretoken.train.checkpoints import Checkpoints
from foretoken.train.corpus import batches
from foretoken.train.divergences import find_divergence
from foretoken.train.language import MOST_ROUNDS, adamw, autocast, step_on
from foretoken.train.rounds import Progress, run_rounds, set_learning_rate

SEQUENCE = "ce"  # cross-entropy of what the target said, which needs none of its probabilities
ROUND_STEPS = 20
ALIKE = 4  # texts of about one length that are read at once: what is padded is computed too
SCORED = 2**25  # logits that a step may hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Imitation:
    """How a draft learns from its target.

    Attributes:
        divergence: `fkl`, `rkl`, `jsd`, `tvd`, or `ce`.
        beta: of `jsd`.
        on_policy: share of the texts that the draft writes itself while it learns; the target writes the others.
        steps: of the optimiser.
        batch: texts of a step.
        max_new_tokens: length of what the draft writes.
        learning_rate, weight_decay: AdamW with warm-up and cosine decay.
        seed: of everything random.
    """

    divergence: str
    beta: float = 0.5
    on_policy: float = 0.0
    steps: int = 1
    batch: int = 16
    max_new_tokens: int = 128
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.divergence != SEQUENCE:
            find_divergence(self.divergence, self.beta)
        if not 0 <= self.on_policy <= 1:
            raise ConfigError(f"on-policy share cannot be {self.on_policy}", hint="it is between 0 and 1")
        if self.on_policy and self.divergence == SEQUENCE:
            raise ConfigError(
                "`ce` learns what the target said, so the draft cannot write the text", hint="take a divergence"
            )

    @property
    def rounds(self) -> int:
        """Times that it is checkpointed and judged."""
        return min(max(self.steps // ROUND_STEPS, 1), MOST_ROUNDS)


def fewest_rows(batch: int, vocab_size: int, max_new_tokens: int) -> int:
    """Texts that a step can hold at once, at most `batch`."""
    return max(1, min(batch, SCORED // (vocab_size * max_new_tokens)))


def imitation_loss(target: Any, draft: Any, texts: Sequence[Text], recipe: Imitation) -> Tensor:
    """Mean divergence of the draft from the target over the positions of the answers, in nats or as a distance.

    Nothing flows back through how the texts were drawn.

    Args:
        target, draft: of `transformers`.
        texts: what was said, by either of them.
        recipe: which divergence.
    """
    parts = [_divergence(target, draft, some, recipe) for some in alike(texts, ALIKE)]
    return torch.stack([part.sum() for part in parts]).sum() / sum(map(len, parts))


def _divergence(target: Any, draft: Any, texts: Sequence[Text], recipe: Imitation) -> Tensor:
    """[M] float32. What `imitation_loss` takes the mean of."""
    ids, scored = padded(texts)
    with autocast(draft.device):
        q = scores(draft, ids, scored).log_softmax(-1)
    if recipe.divergence == SEQUENCE:
        said = ids[:, 1:][scored[:, :-1]].to(q.device)
        return functional.nll_loss(q, said, reduction="none")
    with torch.no_grad(), autocast(target.device):
        p = scores(target, ids, scored)
    size = min(p.shape[-1], q.shape[-1])  # either embedding may be padded
    p, q = p[:, :size].log_softmax(-1), q[:, :size].log_softmax(-1)
    return find_divergence(recipe.divergence, recipe.beta)(p, q)


def imitate(
    target: Any,
    draft: Any,
    texts: Sequence[Text],
    dev: Sequence[Text],
    stop: Sequence[int],
    recipe: Imitation,
    work: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Train a draft in place, and end with the weights of the highest acceptance rate.

    Args:
        target: of `transformers`.
        draft: of `transformers`, in float32.
        texts: what the target said; of those that the draft writes itself, only the prompts are taken.
        dev: what the target said to other prompts, at each temperature that counts.
        stop: ids that end an answer.
        recipe: everything else.
        work: folder for checkpoints.
        progress: told steps done, of how many, and the acceptance rate.

    Returns:
        The mean `acceptance` over temperatures on `dev` after each of `rounds`, and the `round` that was best.
    """
    optimizer = adamw(draft, recipe.learning_rate, recipe.weight_decay)
    edges = [round(recipe.steps * i / recipe.rounds) for i in range(recipe.rounds + 1)]
    stage, said = "learning from the target", ""

    def one_round(number: int) -> None:
        draft.train()
        first, last = edges[number], edges[number + 1]
        for step, at in enumerate(batches(len(texts), recipe.batch, first, last - first, recipe.seed), first):
            set_learning_rate(optimizer, recipe.learning_rate, step / recipe.steps)
            some = rewritten(draft, [texts[i] for i in at.tolist()], recipe, stop)
            step_on(draft, optimizer, imitation_loss(target, draft, some, recipe))
            progress(stage, step + 1, recipe.steps, said)

    def score() -> float:
        found = agreement(target, draft, dev)
        return -sum(found.values()) / len(found)

    def tell(done: int, best: float) -> None:
        nonlocal said
        said = f"acceptance rate {-best:.3f}"
        progress(stage, edges[done], recipe.steps, said)

    found = run_rounds(draft, optimizer, recipe.rounds, one_round, score, Checkpoints(work), recipe.seed, tell)
    return {
        "round": found["round"],
        "rounds": [{"round": i, "acceptance": -score} for i, score in enumerate(found["scores"])],
    }


def rewritten(draft: Any, texts: Sequence[Text], recipe: Imitation, stop: Sequence[int]) -> list[Text]:
    """The texts, each with probability `on_policy` with an answer that the draft gives now."""
    if not recipe.on_policy:
        return list(texts)
    own = (torch.rand(len(texts)) < recipe.on_policy).tolist()
    asked = [text for text, is_own in zip(texts, own, strict=True) if is_own]
    new = iter(said_by(draft, asked, recipe.max_new_tokens, stop) if asked else ())
    return [next(new) if is_own else text for text, is_own in zip(texts, own, strict=True)]
