"""Train parallel heads and their rescorers on a frozen target's own answers.

Reference: Stern et al. 2018, Blockwise Parallel Decoding, https://arxiv.org/abs/1811.03115; Kim et al. 2024,
https://arxiv.org/abs/2404.09221.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from foretoken.errors import ConfigError
from foretoken.llm import LLM
from foretoken.models.block_heads import BlockHeads, BlockShape
from foretoken.models.hf import HFModel
from foretoken.models.ngram import NGram
from foretoken.models.rescoring import Global, Independent, Local
from foretoken.train.agreement import Text
from foretoken.train.inside import Recipe as InsideRecipe
from foretoken.train.inside import fit, greedy, prepare, read, target_of
from foretoken.train.rounds import Progress, silent
from foretoken.train.texts import Source

MOST_PLACES = 1500  # places of held-out text that choices are made on
AT_ONCE = 250  # of them; a lattice of n-grams has top^n weights at each
TOPS = (4, 8, 16)
WEIGHTS = (0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(InsideRecipe):
    """What makes parallel heads.

    Attributes:
        heads, width, memory: sizes (see `BlockShape`).
        order: of the n-gram model.
    """

    heads: int = 4
    width: int = 768
    memory: int = 192
    order: int = 3

    def __post_init__(self) -> None:
        InsideRecipe.__post_init__(self)
        if min(self.heads, self.width, self.memory) < 1 or not 1 <= self.order <= 3:
            raise ConfigError("heads need sizes of 1 or more, and n-grams 1 to 3 tokens", hint="see --help")


class Places(NamedTuple):
    """Places of greedy text where a block may begin.

    Attributes:
        hidden: [M, H] float. The target's state at the token before the root.
        known: [M, K] int64. The newest tokens, the root last.
        actual: [M, heads] int64. What comes after the root.
    """

    hidden: Tensor
    known: Tensor
    actual: Tensor


def train(
    llm: LLM,
    sources: Sequence[Source],
    excluded: Sequence[str],
    recipe: Recipe,
    work: Path,
    progress: Progress = silent,
) -> BlockHeads:
    """Train heads for a target. Interrupted and run again with the same folder, it goes on where it was.

    Heads and recurrent model learn the target's law at later places of its own answers. The round whose heads alone
    have most tokens accepted on held-out greedy answers is kept; there, too, the best rescorer is chosen.

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
    texts = [torch.tensor([*text.prompt, *text.answer]) for text in told.train]
    ngram = NGram.count(texts, target.vocab_size, recipe.order)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        net = fresh(target, recipe, ngram, llm.target.fingerprint)
    dev = places(target, greedy(told, recipe), recipe)

    def of_step(ids: Tensor, scored: Tensor, _: float) -> Tensor:
        scores = read(target, ids)
        assert scores.hidden is not None, "torch hands out hidden states"
        return loss(net, scores.hidden.to(net.output), scores.logits, ids, scored)

    rounds = fit(
        net,
        told,
        recipe,
        recipe.learning_rate,
        of_step,
        lambda: accepted(Independent(net, dev.hidden), dev),
        work,
        progress,
    )
    finish(net, dev)
    net.card |= {**told.card, **rounds}
    return net


def finish(net: BlockHeads, dev: Places) -> None:
    """Let the best rescorer be the default, and write into the card how large the net is and what it is worth."""
    chosen, table = choose(net, dev)
    net.card = {
        "num_parameters_trained": sum(weight.numel() for weight in net.parameters()),
        "num_parameters_copied": net.output.numel(),
        "num_counts": sum(grams for grams, _ in net.shape.grams),
        "num_dev_places": len(dev.known),
        "accepted_on_dev": table,
        "chosen": chosen,
    }
    net.shape = replace(net.shape, **chosen)
    net.requires_grad_(False)


def fresh(target: HFModel, recipe: Recipe, ngram: NGram, fingerprint: str) -> BlockHeads:
    """Heads that say what the target says of the next token, and the n-gram model."""
    sizes = (recipe.heads, recipe.width, recipe.memory, tuple(ngram.sizes))
    net = BlockHeads(BlockShape(target.hidden_size, target.vocab_size, *sizes), fingerprint)
    net.output.copy_(target.output_embedding[: target.vocab_size])
    net.spread.copy_(net.output.std())
    net.ngram.load_state_dict(ngram.state_dict())
    return net


def loss(net: BlockHeads, hidden: Tensor, logits: Tensor, ids: Tensor, scored: Tensor) -> Tensor:
    """Cross-entropy of heads and recurrent model with the target's law at the places they speak of.

    Args:
        net: heads.
        hidden: [R, N, H] float. The target's states.
        logits: [R, N, V] float. Its scores.
        ids: [R, N] int64. The texts.
        scored: [R, N] bool. Places whose next token belongs to the answer.

    Returns:
        A number, the sum over heads of means over places.
    """
    memory, total = net.remember(hidden), logits.new_zeros(())
    for head in range(net.shape.heads):
        end = ids.shape[1] - 1 - head
        if end < 1:
            break
        here = scored[:, :end] & scored[:, 1 + head :]
        law = logits[:, 1 + head :][here].softmax(-1)
        heard = net.read(memory[:, :end].flatten(0, 1), ids[:, 1 + head :].flatten())
        memory = heard.reshape(len(ids), end, -1)
        for said in (net.head(hidden[:, :end][here], head), net.expect(memory[here])):
            total = total - (law * said.float().log_softmax(-1)).sum(-1).mean()
    return total


def places(target: HFModel, texts: Sequence[Text], recipe: Recipe) -> Places:
    """Places of texts, at most `MOST_PLACES`, where a whole block is known."""
    hidden, known, actual = [], [], []
    for text in texts:
        ids = torch.tensor([*text.prompt, *text.answer])
        states = read(target, ids[None]).hidden
        assert states is not None, "torch hands out hidden states"
        # The state at t chose the root at t + 1, and the block goes on to t + 1 + heads.
        width = max(recipe.order - 1, 1)
        first = max(len(text.prompt) - 1, recipe.order)
        for t in range(first, len(ids) - 1 - recipe.heads):
            hidden.append(states[0, t].float())
            known.append(ids[t + 2 - width : t + 2])
            actual.append(ids[t + 2 : t + 2 + recipe.heads])
    if not hidden:
        raise ConfigError("the held-out answers are shorter than a block", hint="ask for more texts, or longer ones")
    every = -(-len(hidden) // MOST_PLACES)
    return Places(*(torch.stack(part[::every]) for part in (hidden, known, actual)))


@torch.no_grad()
def accepted(block: Independent, at: Places) -> float:
    """Mean number of tokens of a greedy draft that the text says, too.

    Args:
        block: heads at these places.
        at: the places; their tokens decide.
    """
    tokens, kept, total = [at.known[:, -1]], torch.ones(len(at.known), dtype=torch.bool), 0.0
    for place in range(at.actual.shape[1]):
        tokens.append(block.score(tokens).argmax(-1))
        kept &= tokens[-1] == at.actual[:, place]
        total += float(kept.float().mean())
    return total


@torch.no_grad()
def choose(net: BlockHeads, dev: Places) -> tuple[dict[str, object], list[dict[str, object]]]:
    """Try all rescorers on held-out text.

    Returns:
        The best `rescore`, `top` and `weight`.
        The best of each `rescore`, with how many tokens were accepted.
    """

    def worth(block: Callable[[Places], Independent]) -> float:
        parts = [Places(*some) for some in zip(*(torch.split(part, AT_ONCE) for part in dev), strict=True)]
        return sum(accepted(block(part), part) * len(part.known) for part in parts) / len(dev.known)

    def ngram(top: int, weight: float) -> Callable[[Places], Independent]:
        return lambda at: Global(net, at.hidden, top, weight, at.known, torch.zeros(len(at.known)))

    def neural(top: int, weight: float) -> Callable[[Places], Independent]:
        return lambda at: Local(net, at.hidden, top, weight)

    tried: list[dict[str, object]] = [{"rescore": "none", "accepted": worth(lambda at: Independent(net, at.hidden))}]
    for top, weight in product(TOPS, WEIGHTS):
        for name, make in (("ngram", ngram), ("neural", neural)):
            tried.append({"rescore": name, "top": top, "weight": weight, "accepted": worth(make(top, weight))})
    best = [
        max((one for one in tried if one["rescore"] == name), key=lambda one: float(str(one["accepted"])))
        for name in ("none", "ngram", "neural")
    ]
    top_one = max(best, key=lambda one: float(str(one["accepted"])))
    return {key: value for key, value in top_one.items() if key != "accepted"}, best
