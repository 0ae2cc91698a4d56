"""One finished answer, as JSON and as a table of counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from foretoken.cli.hardware import hardware
from foretoken.cli.loading import config_json, lossless
from foretoken.cli.output import stderr

if TYPE_CHECKING:
    from foretoken.llm import LLM, Completion
    from foretoken.metrics import Stats
    from foretoken.request import Request
    from foretoken.types import Logprob


def completion_json(llm: LLM, request: Request, completion: Completion) -> dict[str, Any]:
    """Text, ids, counts and rates, and all it takes to get the same again."""
    record: dict[str, Any] = {
        "text": completion.text,
        "token_ids": completion.token_ids,
        "finish_reason": completion.finish_reason.value if completion.finish_reason else None,
        "stats": completion.stats.to_json(),
        "lossless": lossless(llm),
        "seed": completion.seed,
        "config": config_json(llm, request),
        "hardware": hardware(),
        "costs": costs_json(llm),
    }
    if completion.logprobs is not None:
        pairs = zip(completion.token_ids, completion.logprobs, strict=False)
        record["logprobs"] = [_logprob_json(llm, token, logprob) for token, logprob in pairs]
    return record


def costs_json(llm: LLM) -> dict[str, Any] | None:
    """Seconds at batch 1 by draft forwards and by tokens verified, as measured so far; None where nothing asks."""
    if llm.costs is None:
        return None
    verify = {str(tokens): llm.costs.verify_s(tokens) for tokens in (1, 2, 4, 8)}
    drafting = {str(forwards): llm.costs.draft_s(1, forwards) for forwards in (1, 2, 4, 8)}
    return {"draft_s": drafting, "verify_s": verify}


def _logprob_json(llm: LLM, token: int, logprob: Logprob) -> dict[str, Any]:
    def entry(token: int, value: float) -> dict[str, Any]:
        return {"token_id": token, "text": llm.tokenizer.token(token), "logprob": value}

    return {**entry(token, logprob.chosen), "top": [entry(*one) for one in logprob.top]}


def print_stats(each: Sequence[Stats], seed: int, costs: dict[str, Any] | None) -> None:
    """Counts and rates over all answers on stderr, each count beside the rate it belongs to, and what forwards cost."""
    from foretoken.metrics import Stats, total

    stats = Stats(total(one.counts for one in each), max(one.seconds for one in each))
    counts = stats.counts
    rows = [
        ("tokens", counts.num_tokens, f"{stats.tokens_per_s:.1f} per second, {stats.seconds:.2f} s in all"),
        ("target forwards", counts.num_target_forwards, f"block efficiency {stats.block_efficiency:.2f} tokens each"),
        ("drafted", counts.num_drafted, f"in {counts.num_draft_forwards} draft forwards"),
        ("  accepted", counts.num_accepted, f"{stats.acceptance_rate:.0%} of the {counts.num_tested} tested"),
        ("  discarded", stats.num_discarded, f"{stats.discard_rate:.2f} per emitted token"),
    ]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(justify="right", style="bold")
    table.add_column(style="dim")
    for name, count, rate in rows if counts.num_drafted else rows[:2]:
        table.add_row(name, str(count), rate)
    if costs:
        for name, what in (("draft_s", "draft forwards"), ("verify_s", "verified tokens")):
            table.add_row(f"{what}, ms", "", ", ".join(f"{_ms(s)} for {count}" for count, s in costs[name].items()))
    if len(each) == 1:
        table.add_row("seed", "", str(seed))  # as long as it is, it would push the counts aside
    console = stderr()
    console.print()
    console.print(table)


def _ms(seconds: float) -> str:
    """Milliseconds, short enough for four of them on a line of 80 columns."""
    return f"{1e3 * seconds:.{2 if seconds < 0.01 else 1}f}"
