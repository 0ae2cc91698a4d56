"""A draft for a target: made from scratch, cut out of the target, or one there is, then taught by the target."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from foretoken.errors import ConfigError
from foretoken.llm import LLM
from foretoken.train.agreement import Text, agreement, padded, scores
from foretoken.train.answers import answers, bare
from foretoken.train.card import data_card, write_card
from foretoken.train.checkpoints import claim, remembered
from foretoken.train.corpus import rows_to_judge
from foretoken.train.divergences import lenient
from foretoken.train.draft_recipe import Recipe
from foretoken.train.draft_start import start
from foretoken.train.imitation import Imitation, fewest_rows, imitate, imitation_loss, rewritten
from foretoken.train.interpolation import interpolate
from foretoken.train.language import adamw, seconds_per, step_on, validation_loss
from foretoken.train.overlap import EvaluationPrompts, Overlap
from foretoken.train.pair import RESERVE, Data, save_model
from foretoken.train.rounds import Progress, silent
from foretoken.train.sizes import CONTEXT, Size
from foretoken.train.texts import Document

log = logging.getLogger(__name__)

MOST_DEV = 32  # prompts that only select; each is answered once per temperature
MOST_CHARS = 1000  # of a prompt: one long text in a batch makes the others wait
FEWEST_PROMPTS = 30
READ_TWICE = 3  # times that an answer is read, about
ANSWERING = 0.3  # share of the time left that the target spends answering
# Of the learning rate that its width would take from scratch: more undoes what a trained draft knows.
RATE = {"scratch": 1 / 3, "prune": 1 / 3, "distill": 1 / 12}
LENIENCES = (1.0, 0.8, 0.5, 0.2)
ABOUT = (
    "A draft of {weights} weights for the target whose weights hash to `{target}`, made with `foretoken train draft`: "
    "{how}. It proposes tokens that the target then judges, and says nothing of use by itself."
)
HOW = {
    "scratch": "trained from scratch with the target's tokenizer, then on what the target said",
    "distill": "an existing draft, distilled from the target",
    "prune": "cut out of the target, then distilled from it",
}


def train_draft(llm: LLM, data: Data, recipe: Recipe, out: Path, progress: Progress = silent) -> dict[str, Any]:
    """Train and save a draft in `out`. Run again with the same folder, it goes on where it was.

    Args:
        llm: the target, and for `distill` the draft to start from; on the torch backend.
        data: prompts, from scratch with answers or plain texts, and what must not be among them.
        recipe: everything else.
        out: folder for the draft; checkpoints are in `work` below it.
        progress: told the stage, how much of it is done, and of how much.

    Returns:
        The card: acceptance rates by temperature and held-out loss, before and after, and how it was made.

    Raises:
        ConfigError: there is no draft to start from, too few prompts, or the folder belongs to another training.
        ModelError: the target is not built as pruning needs.
    """
    began = time.monotonic()
    work = out / "work"
    dev_prompts, prompts, found = check(llm, data, recipe, work)
    data = replace(data, held_out=[d for source in data.sources for d in source.documents_of(set(dev_prompts))])
    dev, texts = _said(llm, dev_prompts, prompts, recipe, work, began, progress)
    with bare(llm.models[0]) as target:
        draft, made = start(llm, target, data, recipe, dev, work, began, progress)
        weights = [weight.detach().clone() for weight in draft.parameters()]
        loss = _held_out_loss(llm, draft, data)
        before, loss_before = agreement(target, draft, dev), loss()
        stop = sorted(llm.target.stop_token_ids)
        imitation = _planned(target, draft, texts, stop, recipe, work, began)
        learnt = imitate(target, draft, texts, dev, stop, imitation, work / "imitation", progress)
        interpolate(draft, weights, recipe.interpolate)
        after, loss_after = agreement(target, draft, dev), loss()
        lossy = lenience_table(target, draft, dev)
        share = draft.num_parameters() / target.num_parameters()
    if sum(after.values()) < sum(before.values()):
        log.warning("the draft it started from is accepted more often; give more prompts, or a lower --learning-rate")
    card = {
        "acceptance": [{"temperature": t, "before": before[t], "after": after[t]} for t in before],
        "held_out_loss": {"before": loss_before, "after": loss_after, "num_texts": len(data.held_out)},
        "model": {
            "num_parameters": draft.num_parameters(),
            "share_of_target": share,
            "target": llm.target.fingerprint,
            **made,
        },
        "recipe": {**asdict(recipe), "budget": str(recipe.budget)},
        "learning": {**asdict(imitation), "num_answers": len(texts), "best_round": learnt["round"]},
        "rounds": learnt["rounds"],
        "lossy": lossy,
        "data": data_card(data.sources, found, len(data.evaluation)),
    }
    save_model(draft, llm.target.tokenizer.backend, out)
    about = ABOUT.format(
        weights=f"{draft.num_parameters():,}", target=llm.target.fingerprint[:12], how=HOW[recipe.method]
    )
    write_card(out, "Draft model", about, card)
    return card


def check(llm: LLM, data: Data, recipe: Recipe, work: Path) -> tuple[list[str], list[str], list[list[Overlap]]]:
    """Find what cannot work before weights are loaded, and bind the work folder to this training.

    Returns:
        Prompts that only select, in a random order, none of them an evaluation prompt.
        Those that are learnt from, likewise.
        Of each source, those that were evaluation prompts.
    """
    if recipe.method == "distill" and llm.draft is None:
        raise ConfigError("distilling starts from a draft model", hint="give one with `--draft`, or `--method scratch`")
    asked: list[list[str]] = []
    found = []
    index = EvaluationPrompts(data.evaluation)
    for source in data.sources:
        clean, overlaps = index.split([Document(None, prompt) for prompt in source.prompts()])
        asked.append([document.text for document in clean if 0 < len(document.text.strip()) <= MOST_CHARS])
        random.Random(recipe.seed).shuffle(asked[-1])
        found.append(overlaps)
    # Taking turns, so that however few are used, every source has its share.
    prompts = [prompt for turn in zip_longest(*asked) for prompt in turn if prompt is not None]
    if len(prompts) < FEWEST_PROMPTS:
        raise ConfigError(f"{len(prompts)} prompts are too few to train on", hint=f"give at least {FEWEST_PROMPTS}")
    start = llm.draft.fingerprint if recipe.method == "distill" and llm.draft else None
    # What is interpolated comes after all that the folder holds, so another share of the same training is welcome.
    learning = {name: value for name, value in asdict(recipe).items() if name != "interpolate"}
    claim(work, {"target": llm.target.fingerprint, "draft": start, "recipe": learning, **data.identity()})
    dev_count = min(max(len(prompts) // 10, 1), MOST_DEV)
    return prompts[:dev_count], prompts[dev_count:], found


def lenience_table(target: Any, draft: Any, dev: Sequence[Text]) -> list[dict[str, float]]:
    """What lossy acceptance would buy, and how far it would lead from the target, at temperature 1."""
    with torch.no_grad():
        totals = torch.zeros(len(LENIENCES), 2, dtype=torch.float64)
        count = 0
        for text in dev:
            ids, scored = padded([text])
            p, q = scores(target, ids, scored).softmax(-1), scores(draft, ids, scored).softmax(-1)
            size = min(p.shape[-1], q.shape[-1])
            count += len(p)
            for n, lenience in enumerate(LENIENCES):
                totals[n] += torch.tensor([float(x.sum()) for x in lenient(p[:, :size], q[:, :size], lenience)])
    return [
        {"lenience": lenience, "acceptance": a, "distance": d}
        for lenience, (a, d) in zip(LENIENCES, (totals / max(count, 1)).tolist(), strict=True)
    ]


def _held_out_loss(llm: LLM, draft: Any, data: Data) -> Callable[[], float | None]:
    """Measures the draft, as it then is, on the texts held out, in nats per token; None where there are none."""
    if not data.held_out:
        return lambda: None
    context = min(CONTEXT, llm.target.max_length)
    rows = rows_to_judge(llm.target.tokenizer.backend, data.held_out, context)
    batch = fewest_rows(16, draft.config.get_text_config().vocab_size, context)
    return lambda: validation_loss(draft, rows, batch)


def _said(
    llm: LLM,
    dev_prompts: Sequence[str],
    prompts: Sequence[str],
    recipe: Recipe,
    work: Path,
    began: float,
    progress: Progress,
) -> tuple[list[Text], list[Text]]:
    """What the target says to prompts that only select, at each temperature, and to those that are learnt from."""
    llm.prepare()
    loaded = time.monotonic()
    dev = answers(
        llm,
        [(prompt, t) for t in recipe.temperatures for prompt in dev_prompts],
        recipe.max_new_tokens,
        recipe.seed,
        work / "dev.jsonl",
        lambda done, of: progress("the target answers, to select by", done, of),
    )
    speed = remembered(work / "speed.json", lambda: {"answer_s": (time.monotonic() - loaded) / max(len(dev), 1)})
    spent = time.monotonic() - began
    plan = remembered(work / "answers.json", lambda: _answers(recipe, spent, speed["answer_s"], len(prompts)))
    asked = [(p, recipe.temperatures[i % len(recipe.temperatures)]) for i, p in enumerate(prompts)]
    texts = answers(
        llm,
        asked[: plan["count"]],
        recipe.max_new_tokens,
        recipe.seed + 1_000_000,
        work / "answers.jsonl",
        lambda done, of: progress("the target answers, to learn from", done, of),
    )
    return dev, texts


def _answers(recipe: Recipe, spent: float, answer_s: float, most: int) -> dict[str, int]:
    """How many answers to learn from."""
    if recipe.budget.seconds is not None:
        wanted = ANSWERING * max(recipe.budget.seconds - spent, 0) / answer_s
    else:
        wanted = (recipe.budget.tokens or 0) / (READ_TWICE * recipe.max_new_tokens)
    return {"count": min(max(int(wanted), recipe.imitation().batch), most)}


def _planned(
    target: Any, draft: Any, texts: Sequence[Text], stop: Sequence[int], recipe: Recipe, work: Path, began: float
) -> Imitation:
    """The recipe of learning from the target, with as many steps as the budget affords."""
    config = draft.config.get_text_config()
    rate = recipe.learning_rate or Size(config.hidden_size, 1).learning_rate * RATE[recipe.method]
    rows = fewest_rows(16, config.vocab_size, recipe.max_new_tokens)
    one = recipe.imitation(learning_rate=rate, batch=rows)

    def plan() -> dict[str, int]:
        if recipe.budget.tokens is not None:
            per_text = sum(len(text.answer) for text in texts) / len(texts)
            return {"steps": max(int(recipe.budget.tokens / (rows * per_text)), 1)}
        spare = deepcopy(draft).train()
        optimizer = adamw(spare, 1e-4, 0.0)
        some = [texts[i % len(texts)] for i in range(rows)]

        def step() -> None:
            with torch.random.fork_rng():
                own = rewritten(spare, some, one, stop)
            step_on(spare, optimizer, imitation_loss(target, spare, own, one))

        cost = seconds_per(step, 3)
        left = (recipe.budget.seconds or 0) - (time.monotonic() - began)
        return {"steps": max(int(RESERVE * left / cost), 1)}

    return replace(one, **remembered(work / "steps.json", plan))
