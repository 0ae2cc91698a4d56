"""From text to a pair of models: tokenizer, target, draft, and a card for each.

One dial sets everything: a budget in tokens decides sizes and steps by itself; one in minutes is turned into tokens
once, by timing a few steps of the models in question, and written down, so that a resumed training is the same.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foretoken.errors import ConfigError
from foretoken.models.source import pick_device, quiet
from foretoken.train.agreement import Text, agreement
from foretoken.train.budget import Budget
from foretoken.train.card import data_card, write_card
from foretoken.train.checkpoints import claim, remembered
from foretoken.train.corpus import CHARS_PER_TOKEN, held_out, rows_to_learn_and_judge, shuffled
from foretoken.train.language import LanguageRecipe, adamw, fit_language, language_loss, seconds_per, step_on
from foretoken.train.overlap import EvaluationPrompts, Overlap
from foretoken.train.rounds import Progress, silent
from foretoken.train.sizes import CONTEXT, LADDER, Size, afforded, llama
from foretoken.train.texts import Document, Source
from foretoken.train.vocabulary import train_tokenizer

FEWEST_CHARS = 100_000  # that any training takes, if there are as many
BATCHES = (1, 32)  # fewest and most rows of a step
STEPS = 300  # wanted at least, for which small budgets take smaller batches
RESERVE = 0.85  # share of the time left that goes into steps; the rest validates and writes
ABOUT = (
    "A Llama-architecture {role} of {weights} weights with a byte-level BPE tokenizer of {vocab} tokens, trained from "
    "scratch by next-token prediction with `foretoken train pair`, together with its {other}. It exists to try "
    "speculative decoding with; what it says is often wrong."
)


@dataclass(frozen=True, slots=True)
class Data:
    """What a training reads.

    Attributes:
        sources: where texts come from.
        evaluation: prompts that no training text may hold.
        held_out: texts that are only judged.
    """

    sources: Sequence[Source]
    evaluation: Sequence[str] = ()
    held_out: Sequence[Document] = ()

    def clean(self, seed: int, most_chars: float) -> tuple[list[Document], list[list[Overlap]]]:
        """Texts in a random order, as many as are needed and none with an evaluation prompt, and what was found."""
        judged = set(self.held_out)
        everything = [(n, d) for n, source in enumerate(self.sources) for d in source.documents() if d not in judged]
        homes = {id(document): n for n, document in everything}
        taken = shuffled([document for _, document in everything], seed, max(most_chars, FEWEST_CHARS))
        clean, overlaps = EvaluationPrompts(self.evaluation).split(taken)
        found: list[list[Overlap]] = [[] for _ in self.sources]
        for overlap in overlaps:
            found[homes[id(taken[overlap.index])]].append(overlap)
        if len(clean) < 2:
            raise ConfigError(
                f"{len(clean)} texts are too few to train on", hint="give more, or fewer evaluation prompts"
            )
        return clean, found

    def identity(self) -> dict[str, Any]:
        """What tells this data from other data."""
        return {"sources": [source.sha256 for source in self.sources], "evaluation": list(self.evaluation)}


def train_pair(data: Data, budget: Budget, seed: int, out: Path, progress: Progress = silent) -> dict[str, Any]:
    """Train and save `out/target` and `out/draft`. Run again with the same folder, it goes on where it was.

    Args:
        data: texts, and what must not be in them.
        budget: wall-clock time for all of it, or tokens that each model reads.
        seed: of everything random.
        out: folder for both models; checkpoints are in `work` below it.
        progress: told tokens read, of how many.

    Returns:
        The card of the pair: sizes, losses, agreement of the two on held-out text, and the data.

    Raises:
        ConfigError: the folder belongs to another training, or there is next to no text.
    """
    began = time.monotonic()
    work, device = out / "work", pick_device("auto")
    claim(work, {"budget": asdict(budget), "seed": seed, **data.identity()})
    progress("timing steps", 0, 1)
    sizes = remembered(work / "sizes.json", lambda: _sizes(budget, device))
    rung = LADDER[sizes["rung"]]
    progress("reading texts", 0, 1)
    documents, found = data.clean(seed, sizes["tokens"] * CHARS_PER_TOKEN)
    dev_texts, train_texts = held_out(documents)
    tokenizer = train_tokenizer(train_texts, rung.vocab_size, seed)
    rows, dev = rows_to_learn_and_judge(tokenizer, train_texts, dev_texts, CONTEXT)
    models = {
        role: _made(size, tokenizer, seed, device) for role, size in (("target", rung.target), ("draft", rung.draft))
    }
    spent = time.monotonic() - began
    steps = remembered(work / "steps.json", lambda: _steps(budget, sizes["tokens"], spent, models))
    card: dict[str, Any] = {"budget": str(budget), "seed": seed, "vocabulary": len(tokenizer)}
    for role, size in (("target", rung.target), ("draft", rung.draft)):
        recipe = LanguageRecipe(**steps, learning_rate=size.learning_rate, seed=seed)
        model = models[role]
        trained = fit_language(model, rows, dev, recipe, work / role, f"training the {role}", progress)
        card[role] = {**asdict(size), "num_parameters": model.num_parameters(), "recipe": asdict(recipe), **trained}
    card["agreement"] = _agreement(models["target"], models["draft"], dev)
    card["data"] = data_card(data.sources, found, len(data.evaluation))
    for role, other in (("target", "draft"), ("draft", "target")):
        save_model(models[role], tokenizer, out / role)
        weights = f"{card[role]['num_parameters']:,}"
        about = ABOUT.format(role=role, other=other, weights=weights, vocab=len(tokenizer))
        kept = {k: v for k, v in card.items() if k not in ("target", "draft", "data")}
        trained = {k: v for k, v in card[role].items() if k != "rounds"}
        history = {"validation": card[role]["rounds"]}
        write_card(
            out / role,
            f"{role} of a pair",
            about,
            {"model": trained, "training": kept, **history, "data": card["data"]},
        )
    return card


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a checkpoint that `transformers` and foretoken load, in bfloat16."""
    from copy import deepcopy

    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        deepcopy(model).to("cpu", torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _made(size: Size, tokenizer: Any, seed: int, device: torch.device) -> Any:
    end = tokenizer.eos_token_id
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return llama(size, len(tokenizer), bos_token_id=end, eos_token_id=end, pad_token_id=end).to(device)


def rows_of(tokens: float) -> int:
    """Rows of a step, when a training reads so many tokens."""
    fewest, most = BATCHES
    return int(min(max(tokens / (STEPS * CONTEXT), fewest), most))


def _sizes(budget: Budget, device: torch.device) -> dict[str, Any]:
    """Which rung, and about how many tokens its models can read."""
    if budget.tokens is not None:
        tokens = float(budget.tokens)
        return {"rung": LADDER.index(afforded(lambda rung: tokens)), "tokens": tokens}
    seconds = budget.seconds or 0.0
    read: dict[int, float] = {}

    def tokens_for(rung: Any) -> float:
        models = (llama(size, rung.vocab_size).to(device) for size in (rung.target, rung.draft))
        cost = sum(language_step_s(model, 16, 1) for model in models)
        read[LADDER.index(rung)] = RESERVE * seconds / cost * 16 * CONTEXT
        return read[LADDER.index(rung)]

    chosen = LADDER.index(afforded(tokens_for))
    return {"rung": chosen, "tokens": read[chosen]}


def _steps(budget: Budget, tokens: float, spent: float, models: dict[str, Any]) -> dict[str, int]:
    """Rows of a step, and steps: of a budget of time, as many as fit into what is left of it."""
    batch = rows_of(tokens)
    if budget.seconds is not None:
        cost = sum(language_step_s(model, batch, 3) for model in models.values())
        return {"batch": batch, "steps": max(int(RESERVE * (budget.seconds - spent) / cost), 1)}
    return {"batch": batch, "steps": max(int(tokens / (batch * CONTEXT)), 1)}


def language_step_s(model: Any, batch: int, repeats: int) -> float:
    """Seconds of a training step on so many rows, measured on another model like this one."""
    like = type(model)(model.config).to(model.device).train()
    optimizer, ids = adamw(like, 1e-4, 0.0), torch.zeros(batch, CONTEXT + 1, dtype=torch.long)
    return seconds_per(lambda: step_on(like, optimizer, language_loss(like, ids)), repeats)


def _agreement(target: Any, draft: Any, dev: Tensor) -> dict[str, float]:
    """Greedy match rate and 1 - TV on held-out text, which neither model wrote."""
    texts = [Text(row[:1].tolist(), row[1:].tolist(), t) for t in (0.0, 1.0) for row in dev]
    found = agreement(target, draft, texts)
    return {"greedy_match_rate": found[0.0], "acceptance_at_temperature_1": found[1.0]}
