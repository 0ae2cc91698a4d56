"""Station 4: what the rule makes of the draft, given what the target says."""

from __future__ import annotations

from foretoken.accept.base import AcceptanceRule
from foretoken.accept.points import match_likeliest, settle
from foretoken.sampling import distribution
from foretoken.types import Batch, Draft, Scores, Verdict
from foretoken.verify import Paths


def judge(rule: AcceptanceRule, draft: Draft, scores: Scores, batch: Batch) -> tuple[Draft, Verdict]:
    """Let the rule decide.

    Where every request takes the target's likeliest token, that token is all the rule needs of a chain, and no
    distribution is built.

    Returns:
        The draft and the verdict, on the CPU but for the law `q` and what was read along: what follows looks at them.
    """
    # What was read along is none of the rule's business.
    logits = scores.logits if draft.along is None else scores.logits[:, : draft.tokens.shape[1]]
    if rule.lossless and draft.chain and all(row.request.sampling.greedy() for row in batch.rows):
        return match_likeliest(rule, draft, logits)
    return settle(rule, draft, distribution(logits, batch.rows, Paths(draft)), batch.accept_rng)
