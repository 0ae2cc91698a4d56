"""Training data of an acceptance head: continuations of the target, and what the draft would have said in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foretoken.host import to_device
from foretoken.llm import LLM
from foretoken.models.acceptance_head import AcceptanceHead
from foretoken.models.base import LanguageModel
from foretoken.request import Sampling
from foretoken.rng import draw
from foretoken.sampling import warp
from foretoken.train.checkpoints import grown
from foretoken.train.fitting import Part, Training
from foretoken.train.rounds import Progress
from foretoken.types import Scores

GROUP = 16  # prompts sampled in one batch, and the unit of resuming


@dataclass(frozen=True, slots=True)
class Example:
    """One continuation, with what the draft would have said at each of its positions.

    Attributes:
        temperature: of the sampling transform.
        prompt: prompt ids.
        target: sampled from the target, n ids.
        draft: drawn from the draft at the same positions, given the target's text before them, n ids.
        log_q, log_p: their log-probabilities under draft and target, after the transform.
        labels: min(1, p/q), the probability that the target accepts each draft token.
        log_own: their log-probabilities under the draft before the transform, which tell more at temperature 0.
    """

    temperature: float
    prompt: list[int]
    target: list[int]
    draft: list[int]
    log_q: list[float]
    log_p: list[float]
    labels: list[float]
    log_own: list[float]


def read_once(model: LanguageModel, tokens: Sequence[int]) -> Scores:
    """Scores of a whole text in one forward, [1, N, V] and [1, N, H]."""
    return model.forward(torch.tensor([list(tokens)]), model.new_cache(1))


def label(llm: LLM, prompt: Sequence[int], target: list[int], sampling: Sampling, rng: np.random.Generator) -> Example:
    """Draw a draft token at every position of a continuation and label it with its acceptance probability."""
    models = llm.models
    laws = []
    for model in models:
        assert model is not None, "`collect` is given both"
        logits = read_once(model, [*prompt, *target]).logits[0, len(prompt) - 1 : -1]  # [n, V]
        laws.append(warp(logits, sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p).double().cpu())
    p, q = laws
    own = logits.double().log_softmax(-1).cpu()  # of the draft, which came last
    draft = to_device(draw(q, rng.random(len(target)).tolist()), q.device)[:, None]  # [n, 1]
    p_draft, q_draft = p.gather(1, draft)[:, 0], q.gather(1, draft)[:, 0]
    return Example(
        sampling.temperature,
        list(prompt),
        target,
        draft[:, 0].tolist(),
        q_draft.log().tolist(),
        p_draft.clamp_min(1e-30).log().tolist(),
        (p_draft / q_draft).clamp_max(1).tolist(),
        own.gather(1, draft)[:, 0].tolist(),
    )


def collect(
    llm: LLM,
    prompts: Sequence[str],
    sampling: Sampling,
    max_new_tokens: int,
    seed: int,
    path: Path,
    progress: Callable[[int, int], None],
) -> list[Example]:
    """Sample continuations from the target and label them, group by group; finished groups of `path` are kept.

    Args:
        llm: target and draft, both there.
        prompts: what to continue.
        sampling: the transform that acceptance is labelled under.
        max_new_tokens: length of a continuation.
        seed: of everything random.
        path: a JSON line per example.
        progress: told how many examples are done, and of how many.
    """

    def make(items: range) -> list[dict[str, Any]]:
        requests = [llm.request(prompts[i], sampling, max_new_tokens=max_new_tokens, seed=seed + i) for i in items]
        run = llm.run(requests)
        for _ in run:
            pass
        return [
            asdict(label(llm, request.prompt, done.token_ids, sampling, np.random.default_rng([seed, i])))
            for i, request, done in zip(items, requests, run.completions(), strict=True)
        ]

    for done in grown(path, len(prompts), GROUP, make):
        progress(done, len(prompts))
    return [Example(**json.loads(line)) for line in path.read_text().splitlines()]


def collect_each(
    llm: LLM, prompts: Sequence[str], recipe: Training, work: Path, progress: Progress
) -> list[list[Example]]:
    """`collect` for each temperature of a recipe, which share the prompts equally."""
    count = len(recipe.temperatures)
    return [
        collect(
            llm,
            prompts[i::count],
            recipe.sampling(temperature),
            recipe.max_new_tokens,
            recipe.seed,
            work / f"examples-{i}.jsonl",
            lambda done, of, t=temperature: progress(f"sampling at temperature {t}", done, of),  # type: ignore[misc]
        )
        for i, temperature in enumerate(recipe.temperatures)
    ]


def provenance(llm: LLM, recipe: Training, examples: Sequence[Sequence[Example]]) -> dict[str, Any]:
    """What a card says of where a net comes from: target, recipe, and how much it was trained on."""
    return {
        "target": llm.target.fingerprint,
        "recipe": asdict(recipe),
        "num_examples": sum(map(len, examples)),
        "num_tokens": sum(len(example.target) for some in examples for example in some),
    }


def mixed(example: Example, mix: float, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """The text the head reads, and where it is trained.

    Every position keeps the target's token with probability `mix` and takes the draft's otherwise, because at
    inference a candidate follows other candidates, not the target's text.

    Returns:
        Ids of prompt and mixed continuation.
        Positions in them that hold a draft token: the head must score the token it has just read.
    """
    keep = rng.random(len(example.target)) < mix
    tokens = [t if k else d for t, d, k in zip(example.target, example.draft, keep, strict=True)]
    places = [len(example.prompt) + i for i, k in enumerate(keep) if not k]
    return [*example.prompt, *tokens], places


def features(model: LanguageModel, examples: Sequence[Example], mix: float, seed: Sequence[int]) -> Part:
    """What the head sees, and labels, of one pass over the examples, freshly mixed.

    Returns:
        [M, D] float32. Of every position that carries a loss; the probability is the one the token was drawn with.
        [M] float32. Its label.
    """
    seen, labels = [], []
    for index, example in enumerate(examples):
        tokens, places = mixed(example, mix, np.random.default_rng([*seed, index]))
        if places:
            hidden = read_once(model, tokens).hidden
            assert hidden is not None, "a draft model with hidden states"
            at = torch.tensor(places) - len(example.prompt)
            prob = torch.tensor(example.log_own).exp()[at]
            heat = torch.full_like(prob, example.temperature)
            seen.append(AcceptanceHead.describe(hidden[0, places].cpu(), prob, heat))
            labels.append(torch.tensor(example.labels)[at])
    return torch.cat(seen), torch.cat(labels)
