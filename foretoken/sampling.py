"""Logits -> the distribution a request asked for, at any node of a draft.

The target's `p` and the draft's `q` both come from here, so an acceptance rule always sees what was really asked for
and what was really drawn from. Order: penalties, bias, processors, temperature, top-k, top-p, min-p, as in
`transformers`; presence and frequency penalties count the output alone, the repetition penalty the prompt as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from foretoken.types import Row

PathOf = Callable[[int, int], list[int] | None]

HEAD = 1024  # how many of the most likely tokens almost always hold a top-p set; sorting them all is slow


class TokenCounts:
    """Which tokens a row contains, kept up to date by reading what was committed since the last look."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self.seen = torch.zeros(vocab_size, dtype=torch.bool, device=device)
        self.output = torch.zeros(vocab_size, device=device)
        self._read = 0

    def update(self, row: Row) -> TokenCounts:
        """Count what is new in `row.tokens`."""
        new = row.tokens[self._read :]
        if new:
            ids = torch.tensor(new, device=self.seen.device)
            emitted = ids[max(len(row.request.prompt) - self._read, 0) :]
            self.seen[ids] = True
            self.output.index_add_(0, emitted, self.output.new_ones(len(emitted)))
            self._read = len(row.tokens)
        return self


def distribution(logits: Tensor, rows: list[Row], path_of: PathOf, temperature: float | None = None) -> Tensor:
    """Apply every row's sampling parameters to its nodes.

    Args:
        logits: [B, N, V] float. Scores of what follows each node.
        rows: the B rows.
        path_of: (row, node) -> tokens from the root's child down to the node, the history that is not committed yet;
            None in padding.
        temperature: in place of each request's own.

    Returns:
        [B, N, V] float. Sums to one over V at every node; a point mass where the temperature is 0.
    """
    edited = [b for b, row in enumerate(rows) if row.request.sampling.edits]
    if edited:
        logits = logits.clone()
    for b in edited:
        for node in range(logits.shape[1]):
            path = path_of(b, node)
            # What follows a stop token is never emitted, and a processor need not know an answer.
            if path is not None and rows[b].request.stop_token_ids.isdisjoint(path):
                logits[b, node] = _edit(logits[b, node], rows[b], path)
    groups: dict[tuple[float, int, float, float], list[int]] = {}
    for b, row in enumerate(rows):
        s = row.request.sampling
        warmth = s.temperature if temperature is None else temperature
        groups.setdefault((warmth, s.top_k, s.top_p, s.min_p), []).append(b)
    if len(groups) == 1:
        return warp(logits, *groups.popitem()[0])
    probs = torch.empty_like(logits)
    for parameters, members in groups.items():
        probs[members] = warp(logits[members], *parameters)
    return probs


def _edit(logits: Tensor, row: Row, path: list[int]) -> Tensor:
    """Penalties, bias and processors at one node: [V] -> [V], with the node's own path as history."""
    s = row.request.sampling
    key = (TokenCounts, logits.shape[-1])
    if key not in row.memory:
        row.memory[key] = TokenCounts(logits.shape[-1], logits.device)
    counts: TokenCounts = row.memory[key].update(row)
    drafted = torch.tensor(path, dtype=torch.int64, device=logits.device)
    if s.repetition_penalty != 1:
        seen = counts.seen.index_fill(0, drafted, True)
        penalised = torch.where(logits > 0, logits / s.repetition_penalty, logits * s.repetition_penalty)
        logits = torch.where(seen, penalised, logits)
    if s.presence_penalty or s.frequency_penalty:
        output = counts.output.to(logits.dtype)
        output = output.index_add(0, drafted, torch.ones_like(drafted, dtype=logits.dtype))
        logits = logits - s.presence_penalty * (output > 0).to(output) - s.frequency_penalty * output
    if s.logit_bias:
        ids = torch.tensor(list(s.logit_bias), device=logits.device)
        bias = torch.tensor(list(s.logit_bias.values()), dtype=logits.dtype, device=logits.device)
        logits = logits.index_add(0, ids, bias)
    if s.processors:
        history = torch.tensor([row.tokens + path], device=logits.device)
        for processor in s.processors:
            logits = processor(history, logits[None])[0]
    return logits


def warp(logits: Tensor, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> Tensor:
    """Temperature, top-k, top-p and min-p.

    Args:
        logits: [..., V] float.
        temperature, top_k, top_p, min_p: as in `Sampling`.

    Returns:
        [..., V] float. Sums to one over V.
    """
    if temperature == 0:
        top, best = logits.max(-1, keepdim=True)
        # 1, but not a number where the model gave none: whoever draws from it reports that.
        return torch.zeros_like(logits).scatter_(-1, best, top - top + 1)
    if (top_k, top_p, min_p) == (0, 1.0, 0.0) and temperature == 1:  # nothing of what follows changes anything
        return logits.softmax(-1)
    # The most likely token is at 0 from here on, so no temperature is too small and min-p is a plain threshold.
    logits = (logits - logits.amax(-1, keepdim=True)).div_(temperature)
    if 0 < top_k < logits.shape[-1]:
        kth = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if top_p < 1:
        logits = logits.masked_fill(~_nucleus(logits, top_p), -torch.inf)
    if min_p > 0:
        logits = logits.masked_fill(logits < math.log(min_p), -torch.inf)
    return logits.softmax(-1)


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """[..., V] bool. The smallest set of most likely tokens that reaches top_p; of equal ones the lower ids first."""
    probs = logits.softmax(-1)
    for size in (min(HEAD, logits.shape[-1]), logits.shape[-1]):
        values, ids = logits.topk(size, dim=-1)
        head = probs.gather(-1, ids)
        ahead = head.cumsum(-1) - head
        if bool((ahead[..., -1] >= top_p).all()):
            break
    # A token stays if those ahead of it have not reached top_p yet; the first always stays.
    kept = (ahead < top_p).sum(-1, keepdim=True).clamp_min(1)
    least = values.gather(-1, kept - 1)
    more, equal = logits > least, logits == least
    return more | (equal & (equal.cumsum(-1) <= kept - more.sum(-1, keepdim=True)))
