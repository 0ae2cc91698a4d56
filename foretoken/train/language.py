"""Next-token training on packed rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from foretoken.models.source import pick_dtype
from foretoken.train.checkpoints import Checkpoints
from foretoken.train.corpus import batches
from foretoken.train.rounds import Progress, run_rounds, set_learning_rate

CLIP = 1.0  # of the gradient's norm
BETAS = (0.9, 0.95)
MOST_ROUNDS, ROUND_STEPS = 40, 50


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageRecipe:
    """How a model learns to continue text.

    Attributes:
        steps: of the optimiser.
        batch: rows of a step.
        learning_rate, weight_decay: AdamW with warm-up and cosine decay.
        seed: of everything random.
    """

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.1
    seed: int = 0

    @property
    def rounds(self) -> int:
        """Times that it is checkpointed and judged."""
        return min(max(self.steps // ROUND_STEPS, 1), MOST_ROUNDS)


def adamw(model: nn.Module, rate: float, decay: float) -> torch.optim.AdamW:
    """AdamW that lets norms and biases alone."""
    weights = [w for w in model.parameters() if w.requires_grad]
    groups = [
        {"params": [w for w in weights if w.dim() > 1], "weight_decay": decay},
        {"params": [w for w in weights if w.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], rate, BETAS)


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where the hardware multiplies it; weights and what is summed stay in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=pick_dtype("auto", device) is torch.bfloat16)


def language_loss(model: Any, rows: Tensor) -> Tensor:
    """Mean cross-entropy of the next token, in nats.

    Args:
        model: of `transformers`.
        rows: [R, T+1] int.
    """
    rows = rows.to(model.device).long()
    with autocast(model.device):
        logits = model(input_ids=rows[:, :-1], use_cache=False).logits
    return functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())


def step_on(model: Any, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down the gradient, clipped."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()


@torch.no_grad()
def validation_loss(model: Any, rows: Tensor, batch: int) -> float:
    """Mean cross-entropy over held-out rows ([M, T+1] int), in nats per token."""
    model.eval()
    losses = [float(language_loss(model, some)) * len(some) for some in torch.split(rows, batch)]
    return math.fsum(losses) / len(rows)


def fit_language(
    model: Any, rows: Tensor, dev: Tensor, recipe: LanguageRecipe, work: Path, stage: str, progress: Progress
) -> dict[str, Any]:
    """Train in place, and end with the weights of least validation loss.

    Args:
        model: of `transformers`, in float32.
        rows: [M, T+1] int. Packed training text.
        dev: [D, T+1] int. Text that is only judged.
        recipe: everything else.
        work: folder for checkpoints.
        stage: what to call this.
        progress: told tokens read, of how many, and the validation loss.

    Returns:
        `validation_loss`, `tokens` read, `steps`, `rounds`, and the validation loss after each round.
    """
    optimizer = adamw(model, recipe.learning_rate, recipe.weight_decay)
    edges = [round(recipe.steps * i / recipe.rounds) for i in range(recipe.rounds + 1)]
    per_step = recipe.batch * (rows.shape[1] - 1)
    said = ""

    def one_round(number: int) -> None:
        model.train()
        first, last = edges[number], edges[number + 1]
        for step, some in enumerate(batches(len(rows), recipe.batch, first, last - first, recipe.seed), first):
            set_learning_rate(optimizer, recipe.learning_rate, step / recipe.steps)
            step_on(model, optimizer, language_loss(model, rows[some]))
            progress(stage, (step + 1) * per_step, recipe.steps * per_step, said)

    def tell(done: int, best: float) -> None:
        nonlocal said
        said = f"validation loss {best:.3f}"
        progress(stage, edges[done] * per_step, recipe.steps * per_step, said)

    found = run_rounds(
        model,
        optimizer,
        recipe.rounds,
        one_round,
        lambda: validation_loss(model, dev, recipe.batch),
        Checkpoints(work),
        recipe.seed,
        tell,
    )
    return {
        "validation_loss": found["score"],
        "tokens": recipe.steps * per_step,
        "steps": recipe.steps,
        "rounds": [{"round": i, "validation_loss": loss} for i, loss in enumerate(found["scores"])],
    }


def seconds_per(step: Callable[[], object], repeats: int = 2) -> float:
    """Seconds that a step takes, the fastest of a few after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return min(times[1:])
