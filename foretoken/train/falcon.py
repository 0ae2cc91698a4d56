"""Train a semi-autoregressive head on a frozen target's own answers, by coupled sequential glancing distillation.

Reference: Gao et al. 2024, Falcon, https://arxiv.org/abs/2412.12639.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from foretoken.errors import ConfigError
from foretoken.llm import LLM
from foretoken.models.falcon import HEAD, FalconHead, FalconShape
from foretoken.models.hf import HFModel
from foretoken.train.agreement import Text, padded
from foretoken.train.glancing import Blocks, along_answers, at_places, glanced, there
from foretoken.train.inside import Recipe as InsideRecipe
from foretoken.train.inside import fit, greedy, prepare, read, target_of
from foretoken.train.rounds import Progress, silent
from foretoken.train.texts import Source
from foretoken.types import Scores

PASSES = 2  # blocks in a row that are trained, and judged


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(InsideRecipe):
    """What makes a semi-autoregressive head.

    Attributes:
        block, width: sizes (see `FalconShape`).
        glance, glance_last: share of a draft's wrong tokens that are put right before the next block reads it, at the
            start of the training and at its end.
        learning_rate: half of what heads take, which are shallower.
        feature: weight of the distance between states beside the cross-entropy of laws.
    """

    block: int = 2
    width: int = 384
    learning_rate: float = 5e-4
    glance: float = 0.45
    glance_last: float = 0.1
    feature: float = 1.0

    def __post_init__(self) -> None:
        InsideRecipe.__post_init__(self)
        if self.block < 1:
            raise ConfigError(f"a block cannot have {self.block} tokens", hint="2 is what the paper drafts per forward")
        if self.width < 2 or self.width % (HEAD if self.width > HEAD else 2):
            raise ConfigError(f"the head cannot be {self.width} wide", hint=f"take a multiple of {HEAD}")
        if not (0 <= self.glance <= 1 and 0 <= self.glance_last <= 1 and self.feature >= 0):
            raise ConfigError("shares are from 0 to 1, and no weight is negative", hint="see --help")


def train(
    llm: LLM,
    sources: Sequence[Source],
    excluded: Sequence[str],
    recipe: Recipe,
    work: Path,
    progress: Progress = silent,
) -> FalconHead:
    """Train a head for a target. Interrupted and run again with the same folder, it goes on where it was.

    The round is kept that has most tokens accepted of two blocks in a row, on held-out greedy answers.

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
    net = fresh(target, told.train, recipe, llm.target.fingerprint)
    dev = greedy(told, recipe)

    def of_step(ids: Tensor, scored: Tensor, done: float) -> Tensor:
        share = recipe.glance + (recipe.glance_last - recipe.glance) * done
        return loss(net, read(target, ids), ids, scored, share, recipe.feature)

    def by_token() -> list[float]:
        return by_place(net, target, dev, recipe.batch)

    rounds = fit(net, told, recipe, recipe.learning_rate, of_step, lambda: sum(by_token()), work, progress)
    kept = by_token()
    net.card = {
        "num_parameters_trained": sum(weight.numel() for weight in net.parameters()),
        "num_parameters_copied": net.output.numel(),
        **told.card,
        **rounds,
        "accepted_on_dev": [{"drafted": n + 1, "accepted": sum(kept[: n + 1])} for n in range(len(kept))],
    }
    return net.requires_grad_(False)


def fresh(target: HFModel, texts: Sequence[Text], recipe: Recipe, fingerprint: str) -> FalconHead:
    """A head that knows nothing but the target's output embedding, and how large its states are."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        net = FalconHead(FalconShape(target.hidden_size, target.vocab_size, recipe.block, recipe.width), fingerprint)
    ids, scored = padded(texts[: recipe.batch])
    states = read(target, ids).hidden
    assert states is not None, "torch hands out hidden states"
    net.output.copy_(target.output_embedding[: target.vocab_size])
    net.scale.copy_(states[scored].float().std())
    net.spread.copy_(net.output.std())
    return net


def loss(net: FalconHead, scores: Scores, ids: Tensor, scored: Tensor, share: float, feature: float) -> Tensor:
    """Distance of what two blocks in a row say from the target's states and laws.

    The second block reads the draft of the first, in which a share of what is wrong was put right.

    Args:
        net: the head.
        scores: of the target.
        ids: [R, N] int64. The texts.
        scored: [R, N] bool. Places whose next token belongs to the answer.
        share: of wrong tokens that are put right.
        feature: weight of the distance between states.
    """
    assert scores.hidden is not None, "torch hands out hidden states"
    hidden = scores.hidden.to(net.output)
    blocks = Blocks(net, hidden, ids, *along_answers(scored, net.shape.block))
    first = blocks.first()
    with torch.no_grad():
        states, tokens = glanced(first, net.logits(first.states).argmax(-1), hidden, ids, scored, share)
    total = scores.logits.new_zeros(())
    for said in (first, blocks.second(states, tokens)):
        here = there(scored, said.at)
        if here.any():
            own, true = said.states[here], at_places(hidden, said.at)[here]
            law = at_places(scores.logits, said.at)[here].softmax(-1)
            total = total - (law * net.logits(own).log_softmax(-1)).sum(-1).mean()
            total = total + feature * smooth_l1_loss(own / net.scale, true / net.scale)
    return total


@torch.no_grad()
def by_place(net: FalconHead, target: HFModel, texts: Sequence[Text], batch: int) -> list[float]:
    """Share of greedy drafts of greedy texts that are accepted up to each token of two blocks, and with it."""
    size = net.shape.block
    kept, total = torch.zeros(PASSES * size), 0
    for start in range(0, len(texts), batch):
        ids, scored = padded(texts[start : start + batch])
        hidden = read(target, ids).hidden
        assert hidden is not None, "torch hands out hidden states"
        blocks = Blocks(net, hidden.to(net.output), ids, *along_answers(scored, size))
        first = blocks.first()
        tokens = net.logits(first.states).argmax(-1)
        second = blocks.second(first.states, tokens)
        hits, whole = [], []
        for said, chosen in ((first, tokens), (second, net.logits(second.states).argmax(-1))):
            apart = (len(ids), -1, size)
            hits.append((chosen == at_places(ids[:, 1:], said.at)).reshape(apart))
            whole.append(there(scored, said.at).reshape(apart))
        known = torch.cat(whole, -1).all(-1)  # [R, C]
        kept += torch.cat(hits, -1).long().cumprod(-1)[known].sum(0)
        total += int(known.sum())
    return (kept / max(total, 1)).tolist()
