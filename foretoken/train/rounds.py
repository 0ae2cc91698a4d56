"""The loop that all training shares: rounds, each checkpointed and judged, of which the best is kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import nn

from foretoken.train.checkpoints import Checkpoints

WARM_UP = 0.03  # share of the training spent raising the learning rate
FLOOR = 1e-3  # of the learning rate, at its ends


class Progress(Protocol):
    """Told what is going on."""

    def __call__(self, stage: str, done: int, of: int, detail: str = "") -> None:
        """Note the stage, how much of it is done, of how much, and what else is worth knowing."""


def silent(stage: str, done: int, of: int, detail: str = "") -> None:
    """Progress that nobody watches."""


def learning_rate(done: float, warm_up: float = WARM_UP) -> float:
    """Linear warm-up and cosine decay, as a share of the peak.

    Args:
        done: share of the training that is done, 0 to 1.
        warm_up: share of it spent raising the rate.
    """
    rate = done / warm_up if done < warm_up else (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up))) / 2
    return max(rate, FLOOR)


def set_learning_rate(optimizer: torch.optim.Optimizer, peak: float, done: float) -> None:
    """Let every group of an optimizer learn at the rate for this share of the training."""
    for group in optimizer.param_groups:
        group["lr"] = peak * learning_rate(done)


def run_rounds(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    count: int,
    train_round: Callable[[int], None],
    score: Callable[[], float],
    checkpoints: Checkpoints,
    seed: int,
    tell: Callable[[int, float], None] = lambda done, best: None,
) -> dict[str, Any]:
    """Train in place and end with the weights of the best round; goes on after the newest checkpoint there is.

    A round has random numbers of its own, so an interrupted training ends where an uninterrupted one does.

    Args:
        net: freshly made.
        optimizer: of its weights.
        count: rounds.
        train_round: trains one, a function of the net's state and the round's number alone.
        score: judges the net after a round; lower is better.
        checkpoints: where states are kept.
        seed: of everything random.
        tell: told how many rounds are done, and the best score.

    Returns:
        `round` and `score` of the best, and the `scores` of all.
    """
    found = checkpoints.newest()
    first, state = (0, {}) if found is None else (found[0] + 1, found[1])
    best: dict[str, Any] = state.get("best", {"score": math.inf})
    scores: list[float] = state.get("scores", [])
    if found is not None:
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        tell(first, best["score"])
    for number in range(first, count):
        with torch.random.fork_rng():
            torch.manual_seed(seed * 1000 + number)
            train_round(number)
            net.eval()
            with torch.no_grad():
                scores = [*scores, score()]
        weights = net.state_dict()
        if scores[-1] < best["score"] or "net" not in best:
            best = {"score": scores[-1], "round": number, "net": {k: v.clone() for k, v in weights.items()}}
        checkpoints.save(number, {"net": weights, "optimizer": optimizer.state_dict(), "best": best, "scores": scores})
        tell(number + 1, best["score"])
    net.load_state_dict(best["net"])
    net.eval()
    return {"round": best["round"], "score": best["score"], "scores": scores}
