"""Run a length policy over a recorded trace: the steps it would make, without a model and at any cost of one."""

from __future__ import annotations

import torch

from foretoken.accept.base import chain_verdict
from foretoken.bench.trace import Leaves, Trace
from foretoken.costs import GivenCosts
from foretoken.length.base import LengthPolicy
from foretoken.models.base import Enough
from foretoken.models.cache import TensorCache
from foretoken.rng import SeededRng
from foretoken.tokenizer import TextPieces
from foretoken.types import Batch, Continuation, Draft, Drawn, Frontier, Row, chained

Steps = list[tuple[int, int, int]]  # drafted and accepted tokens of each step, and draft forwards


@torch.inference_mode()
def replay(trace: Trace, policy: LengthPolicy, costs: GivenCosts, max_nodes: int = 64) -> Steps:
    """Steps of one request under a policy.

    Args:
        trace: what drafting meets.
        policy: decides how deep, and observes as in the engine.
        costs: what the policy is told that steps cost.
        max_nodes: nodes per step at most, root included.
    """
    prompt = list(trace.request.prompt)
    row = Row(0, trace.request, TextPieces(lambda ids: ""), len(prompt) + trace.request.max_new_tokens, prompt)
    draft_rng, accept_rng = SeededRng([row], "draft"), SeededRng([row], "accept")
    device = trace.on.tokens.device
    batch = Batch([row], TensorCache(0, 1), draft_rng, accept_rng, device, costs)
    steps: Steps = []
    position = 0
    while position < len(trace.text):
        probs, drawn = _draft(trace, position, policy, batch, min(row.room, max_nodes - 1))
        drafted = len(probs)
        accepted = min(trace.run(position), drafted)
        emitted = trace.text[position : position + accepted + 1]
        row.tokens.extend(emitted)
        position += len(emitted)
        costs.observe(1, drawn, 0.0, drafted + 1, 0.0)
        verdict = chain_verdict([drafted], [accepted], [0])
        policy.observe(batch, _as_draft(probs, drawn, device), verdict)
        steps.append((drafted, min(accepted, len(emitted)), drawn))
    return steps


def seconds(steps: Steps, costs: GivenCosts, start_s: float = 0.0) -> float:
    """What steps of one row take, after one another; the first has no step before it.

    Args:
        steps: of the row.
        costs: of each.
        start_s: what the first that drafts costs more.
    """
    took, after = start_s * any(drafted for drafted, *_ in steps), None
    for drafted, _, forwards in steps:
        read = drafted + 1
        took += costs.draft_s(1, forwards) + costs.verify_s(read)
        took += costs.switch_s(read, after) if after else 0.0
        after = read
    return took


def _draft(trace: Trace, start: int, policy: LengthPolicy, batch: Batch, room: int) -> tuple[list[float], int]:
    """The drafter's own probability of each token drafted in one step, and how many were drawn for that."""
    probs: list[float] = []
    drawn = first = asked = sure = 0
    enough: Enough | None = None
    if policy.rests(batch):
        return probs, drawn
    frontier = Frontier([[0]], [[1.0]], [[room > 0]])
    stops = trace.request.stop_token_ids
    leaves, index = trace.on, start
    while frontier.active[0][0] and (len(probs) < sure or policy.grow(frontier, batch)[0][0]):
        asked = asked if len(probs) < sure else len(probs)
        if drawn == len(probs):
            plan = policy.plan(batch, first := drawn)
            drawn += max(min(plan.draw, room - drawn, trace.ahead), 1)
            if trace.ahead and (enough := plan.enough):
                sure = min(plan.sure, drawn)
        if leaves is trace.on and index > start and not trace.accepted[index - 1]:
            leaves, index = trace.off[index - 1], 0
        probs.append(float(leaves.prob[index]))
        depth = len(probs)
        # The record ends with the text, and some way after a rejection.
        token = int(leaves.tokens[index])
        more = depth < room and token not in stops
        more = more and (index + 1 < len(leaves.tokens) or (leaves is trace.on and not trace.accepted[index]))
        if enough and enough.met(token, probs[first:]):
            return probs, depth
        frontier = Frontier([[depth]], [probs[-1:]], [[more]], _said(leaves, index), 0, drawn, [probs[asked:-1]])
        index += 1
    return probs, drawn


def _said(leaves: Leaves, index: int) -> Continuation:
    """What the drafter said of one leaf."""
    tokens, prob, logits = (part[index][None, None] for part in (leaves.tokens, leaves.prob, leaves.logits))
    hidden = None if leaves.hidden is None else leaves.hidden[index][None, None]
    return Continuation(tokens, prob, logits, hidden, None)


def _as_draft(probs: list[float], drawn: int, device: torch.device) -> Draft:
    """The step's draft, as far as policies look at it."""
    nodes = torch.arange(len(probs) + 1, device=device)[None]
    prob = [[1.0, *probs]] if probs else None
    size = len(probs) + 1
    return Draft(torch.zeros_like(nodes), chained(size), [size], None, Drawn.IID, prob, [drawn])
