"""Station 4: what the rule makes of the draft, given what the target says."""

from __future__ import annotations

from torch import Tensor

from foretoken.accept.base import AcceptanceRule
from foretoken.accept.points import settle
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
    if not (rule.lossless and draft.chain and all(row.request.sampling.greedy() for row in batch.rows)):
        return settle(rule, draft, distribution(logits, batch.rows, Paths(draft)), batch.accept_rng)
    if logits.device.type == "cpu":
        said, most = _likeliest(logits)
    else:
        draft, (highest, best) = draft.near(*logits.max(-1))
        said, most = best.tolist(), highest.tolist()
    return draft, rule.match(draft, said, [[score - score + 1 for score in row] for row in most])  # 1, or no number


def _likeliest(logits: Tensor) -> tuple[list[list[int]], list[list[float]]]:
    """Tokens of the highest scores, of equal ones the first, and those scores; what is no number counts as highest.

    Args:
        logits: [B, N, V] float, on the CPU, where numpy finds them in a tenth of torch's time.
    """
    scores = logits.numpy()
    best: list[list[int]] = scores.argmax(-1).tolist()
    return best, [
        [float(of[token]) for of, token in zip(row, tokens, strict=True)]
        for row, tokens in zip(scores, best, strict=True)
    ]
