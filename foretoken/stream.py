"""Station 6: committed ids -> events with final text and log-probabilities."""

from __future__ import annotations

from torch import Tensor

from foretoken.types import Committed, Logprob, Row, Scores, TokenEvent


def stream(committed: list[Committed], scores: Scores) -> list[TokenEvent]:
    """One event per row that gained tokens.

    Args:
        committed: what each row gained, in batch order.
        scores: the verification forward they came from.
    """
    return [
        TokenEvent(
            gained.row.id,
            gained.tokens,
            _text(gained.row),
            gained.origins,
            _logprobs(gained, scores.logits, b),
            gained.row.finish,
        )
        for b, gained in enumerate(committed)
    ]


def _text(row: Row) -> str:
    """What is final of its text and was not handed out yet."""
    ended = row.finish is not None
    return row.text.take(final=ended) if ended or row.request.streams else ""


def _logprobs(gained: Committed, logits: Tensor, b: int) -> list[Logprob] | None:
    """Log-probabilities of row b's new tokens from the nodes that chose them ([B, N, V] -> one entry per token)."""
    wanted = gained.row.request.logprobs
    if wanted is None:
        return None
    log_probs = logits[b, gained.nodes].log_softmax(-1)
    values, ids = log_probs.topk(min(wanted, log_probs.shape[-1]), dim=-1)
    chosen = log_probs[range(len(gained.tokens)), gained.tokens].tolist()
    tops = [list(zip(i, v, strict=True)) for i, v in zip(ids.tolist(), values.tolist(), strict=True)]
    return [Logprob(c, top) for c, top in zip(chosen, tops, strict=True)]
