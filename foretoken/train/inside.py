"""What all drafters that live inside a frozen target are trained on: the target's own answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foretoken.errors import ConfigError
from foretoken.llm import LLM
from foretoken.models.base import LanguageModel
from foretoken.models.bound import BoundNet
from foretoken.models.hf import HFModel
from foretoken.train.agreement import Text, padded
from foretoken.train.answers import answers
from foretoken.train.card import data_card
from foretoken.train.checkpoints import Checkpoints, claim
from foretoken.train.overlap import EvaluationPrompts, Overlap
from foretoken.train.rounds import Progress, run_rounds, set_learning_rate
from foretoken.train.texts import Document, Source
from foretoken.types import Scores

FEWEST = 20  # texts, below which there is nothing to select by


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What every training inside a target has.

    Attributes:
        texts: answers sampled from the target; a tenth of them selects.
        max_new_tokens: length of an answer.
        temperatures: they are sampled at, an equal share each.
        rounds: between two of them the state is saved and judged.
        steps: of the optimizer in a round.
        batch: texts per step.
        learning_rate, weight_decay: of AdamW, with warm-up and cosine decay.
        seed: of everything random.
    """

    texts: int = 800
    max_new_tokens: int = 96
    temperatures: tuple[float, ...] = (0.0, 1.0)
    rounds: int = 10
    steps: int = 30
    batch: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperatures or min(self.rounds, self.steps, self.batch, self.max_new_tokens) < 1:
            raise ConfigError("a recipe needs a temperature, a round, a step, a text and a token", hint="see --help")
        if self.texts < FEWEST:
            raise ConfigError(f"{self.texts} texts are too few to train on", hint=f"take at least {FEWEST}")


@dataclass(frozen=True, slots=True)
class Answers:
    """What a training inside a target learns from.

    Attributes:
        train, dev: texts to learn from and to select by.
        card: what a card says of their source.
    """

    train: list[Text]
    dev: list[Text]
    card: dict[str, Any]


def prepare(
    llm: LLM, sources: Sequence[Source], excluded: Sequence[str], recipe: Recipe, work: Path, progress: Progress
) -> Answers:
    """Sample the target's answers to prompts of all sources alike, none of which holds an evaluation prompt.

    Args:
        llm: the target.
        sources: what is asked.
        excluded: evaluation prompts.
        recipe: everything else.
        work: folder of the training, which is bound to it.
        progress: told how many answers there are.

    Raises:
        ConfigError: there are too few prompts, or the folder belongs to other work.
        RequestError: a source asks nothing.
    """
    evaluation, asked, found = EvaluationPrompts(excluded), [], []
    share = -(-recipe.texts // max(len(sources), 1))
    for source in sources:
        prompts = source.prompts()
        random.Random(recipe.seed).shuffle(prompts)
        clean, overlaps = evaluation.split([Document(prompt, "") for prompt in prompts[: 2 * share]])
        asked += [document.prompt or "" for document in clean[:share]]
        found.append(overlaps)
    asked = _fitting(llm, asked, recipe)
    if len(asked) < FEWEST:
        raise ConfigError(f"{len(asked)} prompts are too few to train on", hint=f"give at least {FEWEST}")
    random.Random(recipe.seed).shuffle(asked)
    asked = asked[: recipe.texts]
    claim(work, {"target": llm.target.fingerprint, **asdict(recipe), "prompts": asked})
    warmths = [recipe.temperatures[i % len(recipe.temperatures)] for i in range(len(asked))]
    texts = answers(
        llm,
        list(zip(asked, warmths, strict=True)),
        recipe.max_new_tokens,
        recipe.seed,
        work / "answers.jsonl",
        lambda done, of: progress("sampling", done, of),
    )
    tenth = max(len(texts) // 10, 2)
    return Answers(texts[tenth:], texts[:tenth], card_of(llm, sources, found, excluded, recipe, texts))


def card_of(
    llm: LLM,
    sources: Sequence[Source],
    found: Sequence[Sequence[Overlap]],
    excluded: Sequence[str],
    recipe: Recipe,
    texts: Sequence[Text],
) -> dict[str, Any]:
    """What a card says of where a net comes from."""
    return {
        "target": llm.target.fingerprint,
        "recipe": asdict(recipe),
        "num_texts": len(texts),
        "num_tokens": sum(len(text.answer) for text in texts),
        "data": data_card(sources, found, len(excluded)),
    }


def _fitting(llm: LLM, prompts: Sequence[str], recipe: Recipe) -> list[str]:
    """Prompts that leave room for an answer."""
    room = llm.target.max_length - recipe.max_new_tokens
    return [prompt for prompt in prompts if prompt.strip() and len(llm.tokenizer.encode(prompt)) <= room]


def target_of(llm: LLM) -> HFModel:
    """The target, which a training reads as torch runs it."""
    model = llm.models[0]
    if not isinstance(model, HFModel):
        raise ConfigError("training runs on torch", hint="use `--backend torch`")
    return model


def read(model: LanguageModel, ids: Tensor) -> Scores:
    """Scores of whole texts in one forward ([R, N] int64, padded on the right)."""
    return model.forward(ids, model.new_cache(len(ids)))


def fit(
    net: BoundNet,
    told: Answers,
    recipe: Recipe,
    peak: float,
    loss: Callable[[Tensor, Tensor, float], Tensor],
    accepted: Callable[[], float],
    work: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Train a net by rounds, and leave it as it was after the best one.

    Args:
        net: is changed.
        told: what it learns from.
        recipe: rounds, steps, texts per step, weight decay, seed.
        peak: of the learning rate.
        loss: of a step, from texts ([R, N] int64), the places of answers in them ([R, N] bool) and the share of the
            training that is done.
        accepted: tokens of a held-out draft that are accepted; the most decides.
        work: folder of the training.
        progress: told how many rounds are done.

    Returns:
        What the card says of the rounds: which one was best, and what each was worth.
    """
    optimizer = torch.optim.AdamW(net.parameters(), peak, weight_decay=recipe.weight_decay)

    def train_round(number: int) -> None:
        net.train()
        for step in range(recipe.steps):
            done = (number + step / recipe.steps) / recipe.rounds
            set_learning_rate(optimizer, peak, done)
            ids, scored = padded(sample(told.train, recipe.batch, [recipe.seed, number, step]))
            optimizer.zero_grad()
            loss(ids, scored, done).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    found = run_rounds(
        net,
        optimizer,
        recipe.rounds,
        train_round,
        lambda: -accepted(),
        Checkpoints(work / "rounds"),
        recipe.seed,
        lambda done, best: progress("training", done, recipe.rounds, f"{-best:.3f} accepted"),
    )
    return {"round": found["round"], "accepted_by_round": [-score for score in found["scores"]]}


def greedy(told: Answers, recipe: Recipe) -> list[Text]:
    """Held-out answers at the lowest temperature, by which rounds are judged."""
    return [text for text in told.dev if text.temperature == min(recipe.temperatures)]


def sample(texts: Sequence[Text], count: int, salt: Sequence[int]) -> list[Text]:
    """Texts of one step, a function of the salt alone."""
    return random.Random(str(list(salt))).sample(list(texts), min(count, len(texts)))
