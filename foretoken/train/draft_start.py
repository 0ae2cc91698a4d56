"""The model that a target teaches: made from scratch, given, or cut out of the target."""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from foretoken.llm import LLM
from foretoken.train.agreement import Text
from foretoken.train.answers import bare
from foretoken.train.checkpoints import remembered
from foretoken.train.corpus import CHARS_PER_TOKEN, held_out, rows_to_learn_and_judge
from foretoken.train.draft_recipe import Recipe
from foretoken.train.language import LanguageRecipe, fit_language
from foretoken.train.pair import RESERVE, Data, language_step_s, rows_of
from foretoken.train.pruning import blocks_of, prune
from foretoken.train.rounds import Progress
from foretoken.train.sizes import CONTEXT, Size, llama


def start(
    llm: LLM,
    target: Any,
    data: Data,
    recipe: Recipe,
    dev: Sequence[Text],
    work: Path,
    began: float,
    progress: Progress,
) -> tuple[Any, dict[str, Any]]:
    """The model that is taught, in float32, and what there is to say of it."""
    if recipe.method == "distill":
        given = llm.models[1]
        with bare(given) as model:
            return deepcopy(model).float(), {"start": llm.draft.fingerprint if llm.draft else None}
    if recipe.method == "prune":
        layers = recipe.layers or max(len(blocks_of(target)) // 3, 1)
        made, about = prune(target, dev, layers, recipe.ffn)
        return made.float(), about
    return _from_scratch(llm, target, data, recipe, work, began, progress)


def _from_scratch(
    llm: LLM, target: Any, data: Data, recipe: Recipe, work: Path, began: float, progress: Progress
) -> tuple[Any, dict[str, Any]]:
    """A small Llama-architecture model with the target's vocabulary, trained on the texts of the data."""
    config = target.config.get_text_config()
    width = recipe.width or max(round(config.hidden_size * 2 / 3 / 64), 1) * 64
    size = Size(width, recipe.layers or max(config.num_hidden_layers // 3, 1))
    tokenizer = llm.target.tokenizer.backend
    special = {name: getattr(config, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = llama(size, config.vocab_size, max_position_embeddings=llm.target.max_length, **special).to(
            target.device
        )

    def plan() -> dict[str, float]:
        if recipe.budget.tokens is not None:
            tokens = float(recipe.budget.tokens)
            return {"batch": rows_of(tokens), "tokens": tokens}
        left = (recipe.budget.seconds or 0) - (time.monotonic() - began)
        tokens = max(left, 0) / 2 * RESERVE * 16 * CONTEXT / language_step_s(model, 16, 2)
        return {"batch": rows_of(tokens), "tokens": tokens}

    planned = remembered(work / "pretraining.json", plan)
    documents, _ = data.clean(recipe.seed, planned["tokens"] * CHARS_PER_TOKEN)
    dev_texts, train_texts = held_out(documents)
    rows, dev = rows_to_learn_and_judge(tokenizer, train_texts, dev_texts, CONTEXT)
    batch = int(planned["batch"])
    steps = max(int(planned["tokens"] / (batch * CONTEXT)), 1)
    learning = LanguageRecipe(steps=steps, batch=batch, learning_rate=size.learning_rate, seed=recipe.seed)
    stage = "training on text"
    trained = fit_language(model, rows, dev, learning, work / "pretraining", stage, progress)
    return model, {**asdict(size), **{k: v for k, v in trained.items() if k != "rounds"}}
