"""The law of what an engine emits for one request, all random outcomes taken together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from foretoken.models.base import LanguageModel
from foretoken.request import Request
from foretoken.rng import RngFactory
from tests.contract.methods import Setup
from tests.contract.outcomes import EveryOutcome, Script, law_of


def engine_law(
    setup: Setup,
    target: LanguageModel,
    draft: LanguageModel,
    request: Request,
    neighbours: Sequence[Request] = (),
    width: int = 256,
    rounding: float = 1e-9,
    **options: Any,
) -> dict[tuple[int, ...], float]:
    """Probability of every output.

    Many outcomes run as rows of one batch, a row per script, so rows differ in length, and leave, at every step.

    Args:
        neighbours: other requests in the same batch; what they emit is not looked at.
        width: outcomes per batch; 1 decodes alone.
        rounding: see `every_outcome`.
        options: of the engine.
    """

    def play(scripts: list[Script]) -> list[tuple[int, ...]]:
        everyone = [*scripts, *(Script() for _ in neighbours)]
        engine = setup.engine(target, draft, scripted(everyone), **options)
        # A request's seed says which script is its own.
        asked = [request] * len(scripts) + list(neighbours)
        rows = engine.start([replace(one, seed=i) for i, one in enumerate(asked)])
        while engine.batch.rows:
            engine.step()
        return [tuple(row.output) for row in rows[: len(scripts)]]

    return law_of(play, width, rounding)


def scripted(scripts: Sequence[Script]) -> RngFactory:
    """Random numbers for an engine whose requests have the indices of their scripts as seeds."""
    return lambda rows, purpose: EveryOutcome(lambda b: scripts[rows[b].request.seed], lambda: len(rows))
