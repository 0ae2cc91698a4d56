"""Train look-ahead embeddings on a frozen target's own answers.

Reference: Monea, Joulin and Grave 2023, PaSS, https://arxiv.org/abs/2311.13581.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from foretoken.errors import ConfigError
from foretoken.llm import LLM
from foretoken.models.hf import cache_argument
from foretoken.models.lookahead import LookAhead, LookAheadShape
from foretoken.train.agreement import Text, padded
from foretoken.train.answers import bare
from foretoken.train.inside import Recipe as InsideRecipe
from foretoken.train.inside import fit, greedy, prepare, target_of
from foretoken.train.rounds import Progress, silent
from foretoken.train.texts import Source

DEV_CUTS = 32  # of every held-out answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(InsideRecipe):
    """What makes look-ahead embeddings.

    Attributes:
        ahead: how many of them.
        cuts: places of an answer at which they are read in a step.
        learning_rate: in spreads of the target's own embeddings.
    """

    ahead: int = 4
    cuts: int = 24
    learning_rate: float = 0.4
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        InsideRecipe.__post_init__(self)
        if min(self.ahead, self.cuts) < 1:
            raise ConfigError("a recipe needs a look-ahead token and a cut", hint="see --help")


def train(
    llm: LLM,
    sources: Sequence[Source],
    excluded: Sequence[str],
    recipe: Recipe,
    work: Path,
    progress: Progress = silent,
) -> LookAhead:
    """Train look-ahead embeddings for a target. Run again with the same folder, it goes on where it was.

    At random cuts of the target's answers they are read behind the text, and learn the target's law at the places they
    stand for. The round is kept that has most tokens accepted on held-out greedy answers.

    Args:
        llm: the target, on torch.
        sources: what is asked.
        excluded: evaluation prompts, which no prompt may hold.
        recipe: everything else.
        work: folder for data and checkpoints.
        progress: told the stage, how much of it is done, and of how much.

    Raises:
        ConfigError: there are too few prompts, or the folder belongs to other work.
    """
    told = prepare(llm, sources, excluded, recipe, work, progress)
    target = target_of(llm)
    table = target.model.get_input_embeddings().weight.detach().float()
    net = fresh(table, recipe, llm.target.fingerprint)
    peak = recipe.learning_rate * float(table.std())
    dev_texts = greedy(told, recipe)

    with bare(target) as model:
        model.requires_grad_(False)

        def of_step(ids: Tensor, scored: Tensor, _: float) -> Tensor:
            cuts, there = cut(scored, recipe.cuts, recipe.ahead)
            laws, said = look(model, net.embeddings, ids, cuts)
            return loss(laws, said, cuts, there)

        def by_token() -> list[float]:
            return by_place(model, net.embeddings, dev_texts, recipe)

        rounds = fit(net, told, recipe, peak, of_step, lambda: sum(by_token()), work, progress)
        kept = by_token()
    dev = [{"ahead": n + 1, "accepted": sum(kept[: n + 1])} for n in range(recipe.ahead)]
    net.card = {**told.card, "num_parameters_trained": net.embeddings.numel(), **rounds, "accepted_on_dev": dev}
    return net.requires_grad_(False)


def fresh(table: Tensor, recipe: Recipe, fingerprint: str) -> LookAhead:
    """Look-ahead tokens that are read as the mean of a target's tokens ([V, H] float), and each a little otherwise."""
    net = LookAhead(LookAheadShape(table.shape[1], len(table), recipe.ahead), fingerprint)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        net.embeddings.data = table.mean(0) + 0.1 * table.std() * torch.randn(net.embeddings.shape)
    return net


def cut(scored: Tensor, count: int, ahead: int) -> tuple[Tensor, Tensor]:
    """Random places of answers.

    Args:
        scored: [R, N] bool. Places whose next token belongs to the answer.
        count: C, how many of each answer.
        ahead: E, look-ahead tokens behind each.

    Returns:
        [R, C] int64. Places of the last token that is read before the look-ahead tokens.
        [R, C, E] bool. Whether the target has a law at the place that a look-ahead token stands for.
    """
    cuts = torch.multinomial(scored.float(), count, replacement=True)
    stands = cuts[..., None] + torch.arange(1, ahead + 1)
    inside = stands < scored.shape[1]
    flat = stands.clamp_max(scored.shape[1] - 1).flatten(1)
    return cuts, scored.gather(1, flat).reshape(stands.shape) & inside


def look(model: Any, embeddings: Tensor, ids: Tensor, cuts: Tensor) -> tuple[Tensor, Tensor]:
    """Read texts, and look-ahead tokens behind some of their places.

    Args:
        model: of `transformers`.
        embeddings: [E, H] float. Of the look-ahead tokens.
        ids: [R, N] int64. Texts, padded on the right.
        cuts: [R, C] int64. Places.

    Returns:
        [R, N, V] float32. Logits of the texts.
        [R, C, E, V] float32. Logits of the look-ahead tokens.
    """
    (rows, size), (ahead, _), count = ids.shape, embeddings.shape, cuts.shape[1]
    cache = {str(cache_argument(model.forward)): DynamicCache(config=model.config)}
    with torch.no_grad():
        plain = model(input_ids=ids, use_cache=True, **cache)
    table = model.get_input_embeddings()
    read = embeddings * getattr(table, "embed_scale", 1.0)
    read = read.to(table.weight.dtype).repeat(count, 1).expand(rows, -1, -1)  # [R, C*E, H]
    number = torch.arange(count * ahead)
    last = cuts.repeat_interleave(ahead, 1)  # [R, C*E]
    text = torch.arange(size) <= last[..., None]
    own = (number // ahead == (number // ahead)[:, None]) & (number <= number[:, None])
    seen = torch.cat([text, own.expand(rows, -1, -1)], 2)[:, None]
    mask = torch.zeros(seen.shape, dtype=read.dtype).masked_fill(~seen, torch.finfo(read.dtype).min)
    out = model(
        inputs_embeds=read,
        position_ids=last + 1 + number % ahead,
        attention_mask=mask,
        use_cache=True,
        **cache,
    )
    return plain.logits.float(), out.logits.float().unflatten(1, (count, ahead))


def loss(laws: Tensor, said: Tensor, cuts: Tensor, there: Tensor) -> Tensor:
    """Cross-entropy of look-ahead tokens with the target's law at the places they stand for, summed over E.

    Args:
        laws: [R, N, V] float. Logits of the texts.
        said: [R, C, E, V] float. Logits of the look-ahead tokens.
        cuts: [R, C] int64. Places.
        there: [R, C, E] bool. Whether there is a law.
    """
    total, row = said.new_zeros(()), torch.arange(len(cuts))[:, None]
    for place in range(there.shape[2]):
        here = there[..., place]
        if here.any():
            law = laws[row, (cuts + 1 + place).clamp_max(laws.shape[1] - 1)][here].softmax(-1)
            total = total - (law * said[:, :, place][here].log_softmax(-1)).sum(-1).mean()
    return total


@torch.no_grad()
def by_place(model: Any, embeddings: Tensor, texts: Sequence[Text], recipe: Recipe) -> list[float]:
    """Share of greedy drafts of held-out answers that are accepted up to each look-ahead token, and with it.

    What is accepted is what the target itself says at those places, so any text will do, greedy ones best.
    """
    kept, total = torch.zeros(recipe.ahead), 0.0
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)  # the same cuts in every round
        for start in range(0, len(texts), recipe.batch):
            ids, scored = padded(texts[start : start + recipe.batch])
            cuts, there = cut(scored, DEV_CUTS, recipe.ahead)
            laws, said = look(model, embeddings, ids, cuts)
            stands = (cuts[..., None] + torch.arange(1, recipe.ahead + 1)).clamp_max(ids.shape[1] - 1)
            right = laws.argmax(-1).gather(1, stands.flatten(1)).reshape(stands.shape)
            whole = there[..., -1]
            kept += (said.argmax(-1) == right).long().cumprod(-1)[whole].sum(0)
            total += int(whole.sum())
    return (kept / max(total, 1)).tolist()
