"""Station 5: make a verdict final. The only writer of a row's tokens and of the target's committed cache."""

from __future__ import annotations

from foretoken.types import Batch, Committed, Draft, FinishReason, Origin, Row, Verdict


def commit(batch: Batch, draft: Draft, verdict: Verdict) -> list[Committed]:
    """Append what was accepted and the token after it, cut where the request ends, and compact the cache.

    Returns:
        One entry per row, in batch order.
    """
    tokens = draft.tokens.tolist()
    committed = []
    for b, row in enumerate(batch.rows):
        path = verdict.path[b]
        gained = [*(tokens[b][node] for node in path), verdict.next_token[b]]
        origins = [*[Origin.ACCEPTED] * len(path), Origin.RECOVERED if verdict.recovered[b] else Origin.BONUS]
        kept = _append(row, gained)
        committed.append(Committed(row, gained[:kept], origins[:kept], [0, *path][:kept]))
        row.counts.num_tokens += kept
        row.counts.num_target_forwards += 1
        row.counts.num_draft_forwards += draft.num_forwards[b]
        row.counts.num_drafted += draft.sizes[b] - 1
        row.counts.num_tested += verdict.tested[b]
        row.counts.num_accepted += min(kept, len(path))
        row.counts.num_cut += kept <= len(path)
    batch.cache.commit([[0, *path] for path in verdict.path])  # the root as well
    return committed


def _append(row: Row, tokens: list[int]) -> int:
    """Append tokens until the request ends, and return how many were taken."""
    for taken, token in enumerate(tokens, 1):
        row.tokens.append(token)
        if row.text.push(token) or token in row.request.stop_token_ids:
            row.finish = FinishReason.STOP
        elif len(row.tokens) >= row.capacity:
            row.finish = FinishReason.LENGTH
        if row.finish is not None:
            return taken
    return len(tokens)
