"""Station 4: what the rule makes of the draft, given what the target says."""

from __future__ import annotations

from foretoken.accept.base import AcceptanceRule
from foretoken.sampling import distribution
from foretoken.types import Batch, Draft, Scores, Verdict
from foretoken.verify import Paths


def judge(rule: AcceptanceRule, draft: Draft, scores: Scores, batch: Batch) -> Verdict:
    """Let the rule decide.

    Where every request takes the target's likeliest token, that token is all the rule needs of a chain, and no
    distribution is built.
    """
    logits = scores.logits[:, : draft.tokens.shape[1]]  # what was read along is none of the rule's business
    if rule.lossless and draft.chain and all(row.request.sampling.greedy() for row in batch.rows):
        most, likeliest = logits.max(-1)
        return rule.match(draft, likeliest, most)
    return rule.accept(draft, distribution(logits, batch.rows, Paths(draft)), batch.accept_rng)
