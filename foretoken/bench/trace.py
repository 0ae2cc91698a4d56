"""What drafting would meet at every position of a text: enough to judge any length policy without running a model.

Text and acceptance are drawn together. Plain decoding emitted x from p; a token drafted there from q is accepted, given
that x is emitted, with probability min(p, q)(x) / p(x), and is x itself then; otherwise it is a draw from the positive
part of q - p, and the target recovers x. A chain that goes on after a rejection follows the draft's own words, which
are read here too, since a policy that does not stop there pays for them. Whatever lengths a policy chooses, the steps
it makes on a trace have the law they would have in the engine with the `rejection` rule.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from foretoken.accept.base import residual
from foretoken.errors import RequestError
from foretoken.host import to_device
from foretoken.models.base import KVCache, LanguageModel, Places
from foretoken.models.prefill import prefill
from foretoken.request import Request
from foretoken.rng import draw
from foretoken.sampling import warp
from foretoken.types import Scores

DEPTH = 20  # drafted tokens after a rejection that are recorded


@dataclass(frozen=True, slots=True)
class Leaves:
    """Drafted tokens, each with what the drafter knew when it drew it.

    Attributes:
        tokens: [M] int64.
        prob: [M] float. As `Frontier.prob`.
        logits: [M, V] float. As `Frontier.logits`.
        hidden: [M, H] float or None. As `Frontier.hidden`.
    """

    tokens: Tensor
    prob: Tensor
    logits: Tensor
    hidden: Tensor | None


@dataclass(frozen=True, slots=True)
class Trace:
    """One text of n tokens and the drafting of it.

    Attributes:
        request: what was asked.
        text: n emitted ids.
        accepted: whether the token drafted at each position is kept, if everything drafted before it was.
        on: n leaves, the token drafted at each position after the text before it.
        off: by rejected position, the leaves that would be drafted after it, nearest first.
        ahead: how many tokens the draft draws at once, looked at or not; 0 if it only scores.
    """

    request: Request
    text: list[int]
    accepted: list[bool]
    on: Leaves
    off: dict[int, Leaves]
    ahead: int = 0

    def run(self, position: int) -> int:
        """How many tokens drafted from a position on would be accepted."""
        rest = self.accepted[position:]
        return rest.index(False) if False in rest else len(rest)


@torch.inference_mode()
def record(target: LanguageModel, draft: LanguageModel, request: Request, text: list[int]) -> Trace:
    """Trace a text that plain decoding emitted for a request.

    Cost: a target and a draft forward over the text, and up to `DEPTH` draft forwards over one token per rejection.

    Args:
        target: what emitted the text.
        draft: what would have drafted it.
        request: its prompt, sampling parameters and seed.
        text: emitted ids, at least one.

    Raises:
        RequestError: the request's law depends on earlier tokens or has a bias, which is not replayed.
    """
    if request.sampling.looks_back or request.sampling.logit_bias:
        raise RequestError("penalties, biases and processors are not simulated", hint="leave them out")
    rng = np.random.default_rng([request.seed, 1])
    read = [request.prompt[-1], *text[:-1]]
    p = _law(_read(target, request, read)[0], request)
    scores, cache = _read(draft, request, read)
    q = _law(scores, request)
    emitted = torch.tensor(text, device=p.device)
    p_text, q_text = (law.gather(1, emitted[:, None])[:, 0] for law in (p, q))
    # Half precision may score a text a little otherwise than when it was made; do not divide by zero then.
    chance = torch.where(p_text > 0, torch.minimum(p_text, q_text) / p_text.clamp_min(1e-30), q_text)
    accepted = torch.tensor(rng.random(len(text)), device=p.device) < chance
    refused = to_device(draw(residual(q, p), rng.random(len(text)).tolist()), p.device)
    on = _leaves(torch.where(accepted, emitted, refused), scores)
    rejected = (~accepted).cpu().nonzero()[:, 0]
    ahead = 0 if request.sampling.warmth() is None else draft.ahead(1)
    return Trace(request, text, accepted.tolist(), on, _branches(draft, cache, request, on, rejected, rng), ahead)


def _branches(
    draft: LanguageModel, cache: KVCache, request: Request, on: Leaves, rejected: Tensor, rng: np.random.Generator
) -> dict[int, Leaves]:
    """Draft on after every rejected position, all of them in one token tree.

    Args:
        draft: what drafts.
        cache: its cache, the text's entries pending.
        request: gives sampling parameters.
        on: what was drafted along the text.
        rejected: [M] int64, on the CPU. Positions.
        rng: randomness of the drawing.
    """
    count = len(rejected)
    if not count:
        return {}
    tokens, levels = on.tokens[rejected], []
    mask = torch.arange(len(on.tokens)) <= rejected[:, None]  # [M, n]
    for depth in range(DEPTH):
        mask = torch.cat([mask, torch.eye(count, dtype=torch.bool)], 1)
        positions = len(request.prompt) + rejected + depth
        scores = draft.forward(tokens[None], cache, Places(positions[None], mask[None]))
        law = _law(scores, request)
        tokens = to_device(draw(law, rng.random(count).tolist()), law.device)
        levels.append(_leaves(tokens, scores))
    tokens, prob, logits = (
        torch.stack([getattr(one, name) for one in levels], 1) for name in ("tokens", "prob", "logits")
    )
    hidden = (
        None if levels[0].hidden is None else torch.stack([one.hidden for one in levels if one.hidden is not None], 1)
    )
    return {
        position: Leaves(tokens[i], prob[i], logits[i], None if hidden is None else hidden[i])
        for i, position in enumerate(rejected.tolist())
    }


def _read(model: LanguageModel, request: Request, tokens: list[int]) -> tuple[Scores, KVCache]:
    """Scores of a text in one forward, and the cache in which it is pending."""
    cache = prefill(model, [list(request.prompt[:-1])])
    return model.forward(torch.tensor([tokens]), cache), cache


def _law(scores: Scores, request: Request) -> Tensor:
    """[M, V] float64. What the request asks to sample from."""
    s = request.sampling
    return warp(scores.logits[0], s.temperature, s.top_k, s.top_p, s.min_p).double()


def _leaves(tokens: Tensor, scores: Scores) -> Leaves:
    """What each of M tokens was drawn from.

    Args:
        tokens: [M] int64.
        scores: of the M forwards.
    """
    logits = scores.logits[0]
    prob = (logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(1)).exp()
    return Leaves(tokens, prob, logits, None if scores.hidden is None else scores.hidden[0])
