"""The loop: draft, verify, accept, commit, observe, stream. It never knows which methods it runs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from time import perf_counter

import torch
from torch import Tensor

from foretoken.accept.base import AcceptanceRule
from foretoken.commit import commit
from foretoken.costs import Costs, GivenCosts
from foretoken.draft.base import Drafter
from foretoken.errors import ConfigError, RequestError
from foretoken.judge import judge
from foretoken.length.base import LengthPolicy
from foretoken.models.base import LanguageModel
from foretoken.models.prefill import prefill
from foretoken.request import Request
from foretoken.rng import RngFactory, SeededRng
from foretoken.shape.base import TreeShape
from foretoken.stream import stream
from foretoken.tokenizer import TextPieces
from foretoken.types import Batch, Draft, FinishReason, Row, TokenEvent, Verdict, swap_remove
from foretoken.verify import verify


class Engine:
    """Batched speculative decoding. Rows join with `start`, gain tokens with `step`, and leave when they end.

    Cost per step: one target forward, one draft forward per drafted token of the row that drafts most.

    Args:
        target: the model whose output is reproduced.
        drafter: proposes tokens.
        length: how deep.
        shape: how wide.
        rule: which proposals are kept.
        decode: token ids -> text, for text events and stop strings.
        open_ids: ids after which earlier text may still change (see `Tokenizer.open_ids`).
        max_nodes: nodes per row and step at most, root included.
        costs: what a step costs, told of every step; None takes a draft forward for a tenth of a target's.
        rng: randomness; tests replace it.

    Raises:
        ConfigError: the methods do not fit each other.
    """

    def __init__(
        self,
        target: LanguageModel,
        drafter: Drafter,
        length: LengthPolicy,
        shape: TreeShape,
        rule: AcceptanceRule,
        *,
        decode: Callable[..., str] = lambda ids: "",
        open_ids: frozenset[int] = frozenset(),
        max_nodes: int = 64,
        costs: Costs | None = None,
        rng: RngFactory = SeededRng,
    ) -> None:
        check_fit(type(drafter), type(length), type(shape), type(rule))
        self.target, self.drafter, self.length, self.shape, self.rule = target, drafter, length, shape, rule
        self.max_nodes = max_nodes
        self._decode, self._open_ids = decode, open_ids
        self._ids = count()
        self._idle = 0  # steps to come without a draft, about which nobody needs to be asked
        # Drafts of which nobody was told yet, the seconds each took, as `_draft` has it, and those of the whole step.
        self._untold: list[tuple[Draft, float | None, float]] = []
        rows: list[Row] = []
        self.batch = Batch(
            rows,
            target.new_cache(0),
            rng(rows, "draft"),
            rng(rows, "accept"),
            target.device,
            drafter.priced(costs or GivenCosts(0.1)),
            rule.coupled,
        )

    @torch.inference_mode()
    def start(self, requests: list[Request]) -> list[Row]:
        """Let requests join the batch: reads all but the last token of each prompt.

        Raises:
            RequestError: a prompt does not fit the context, or a request does not fit the acceptance rule.
        """
        rows = [self._row(request) for request in requests]
        if rows:
            states: list[list[Tensor]] | None = [[] for _ in rows] if self.drafter.reads_target else None
            self.batch.cache.extend(prefill(self.target, [row.tokens[:-1] for row in rows], states))
            self.drafter.start(rows, [torch.cat(held) if held else None for held in states or [[]] * len(rows)])
            self.batch.rows.extend(rows)
            self._idle = 0
        return rows

    @torch.inference_mode()
    def step(self) -> list[TokenEvent]:
        """Let every row gain at least one token, and let finished rows leave."""
        batch = self.batch
        if not batch.rows:
            return []
        begin = perf_counter()
        draft, draft_s = self._draft()
        scores = verify(self.target, draft, batch)  # one target forward
        draft, verdict = judge(self.rule, draft, scores, batch)
        committed = commit(batch, draft, verdict)  # cuts where a request ends; the only writer
        self.drafter.observe(batch, draft, verdict, scores)
        events = stream(committed, scores)
        self._untold.append((draft, draft_s, perf_counter() - begin))
        if not self._idle:
            self._tell(verdict)
        self._release([b for b, row in enumerate(batch.rows) if row.finish is not None])
        return events

    @torch.inference_mode()
    def cancel(self, row: Row) -> TokenEvent:
        """End a running request now; its last event carries the text held back so far."""
        index = self.batch.rows.index(row)
        row.finish = FinishReason.CANCELLED
        self._release([index])
        return TokenEvent(row.id, [], row.text.take(final=True), [], None, row.finish)

    def _draft(self) -> tuple[Draft, float | None]:
        """A draft, and the seconds it took; None where a device may still be at work on it."""
        begin, what = perf_counter(), (self.batch, self.length)
        if self._idle:
            self._idle -= 1
            draft = Draft.root_only(self.batch.roots, self.drafter.drawn)
        elif self.length.rests(self.batch):
            draft = self.drafter.rest(*what, self.max_nodes)
            self._idle = self.length.idle(self.batch)
        else:
            draft = self.drafter.draft(*what, self.shape, self.max_nodes)
        return draft, perf_counter() - begin if draft.tokens.device.type == "cpu" else None

    def _tell(self, verdict: Verdict) -> None:
        """Tell what came of the last step, and what all took since somebody was told; none is still on a device."""
        costs = self.batch.costs
        for draft, draft_s, step_s in self._untold:
            rows, forwards = len(draft.sizes), max(draft.num_forwards)
            if draft_s is None:
                should = costs.draft_s(rows, forwards) if forwards else 0.0
                draft_s = step_s * should / (should + costs.verify_s(draft.num_read))
            costs.observe(rows, forwards, draft_s, draft.num_read, step_s - draft_s)
        self._untold.clear()
        self.length.observe(self.batch, draft, verdict)

    def _row(self, request: Request) -> Row:
        check_request(request, self.target.max_length, type(self.rule), self.target.vocab_size)
        capacity = min(len(request.prompt) + request.max_new_tokens, self.target.max_length)
        text = TextPieces(self._decode, request.stop, self._open_ids)
        return Row(next(self._ids), request, text, capacity, list(request.prompt))

    def _release(self, gone: list[int]) -> None:
        if not gone:
            return
        rows = self.batch.rows
        self.batch.cache.release(gone)
        self.drafter.release(gone)
        for to, source in swap_remove(len(rows), gone):
            rows[to] = rows[source]
        del rows[len(rows) - len(gone) :]


def check_fit(
    drafter: type[Drafter], length: type[LengthPolicy], shape: type[TreeShape], rule: type[AcceptanceRule]
) -> None:
    """Refuse methods that do not fit each other. Needs no weights, so it runs before anything is loaded.

    Raises:
        ConfigError: with the first misfit.
    """
    if drafter.drawn not in rule.handles:
        handled = ", ".join(sorted(d.value for d in rule.handles))
        raise ConfigError(
            f"drafter `{drafter.__name__}` chooses children as {drafter.drawn.value}, "
            f"which rule `{rule.__name__}` cannot judge",
            hint=f"use a rule that handles {drafter.drawn.value}; this one handles {handled}",
        )
    if missing := length.needs - drafter.provides:
        raise ConfigError(
            f"length policy `{length.__name__}` needs {', '.join(sorted(missing))}, "
            f"which drafter `{drafter.__name__}` has not",
            hint="use `--length fixed`, or a drafter that is a language model",
        )
    for limit, who in ((drafter.max_children, drafter), (rule.max_children, rule)):
        if limit is not None and shape.max_children > limit:
            raise ConfigError(
                f"`{who.__name__}` handles {limit} child per node, shape `{shape.__name__}` makes {shape.max_children}",
                hint="use `--shape chain`",
            )


def check_request(request: Request, max_length: int, rule: type[AcceptanceRule], vocab_size: int) -> None:
    """Refuse a request that cannot be served. Needs no weights.

    Raises:
        RequestError: with the first misfit.
    """
    if len(request.prompt) >= max_length:
        raise RequestError(
            f"the prompt has {len(request.prompt)} tokens, the model's context {max_length}",
            hint=f"shorten the prompt to at most {max_length - 1} tokens",
        )
    if rule.greedy_only and request.sampling.temperature != 0:
        raise RequestError(
            f"rule `{rule.__name__}` works at temperature 0 only, not at {request.sampling.temperature}",
            hint="use `--accept block`, or `--temperature 0`",
        )
    for token in (*request.prompt, *request.sampling.logit_bias):
        if not 0 <= token < vocab_size:
            raise RequestError(f"token id {token} is outside the vocabulary", hint=f"ids go from 0 to {vocab_size - 1}")
