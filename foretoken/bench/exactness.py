"""Whether methods say what plain decoding says, judged where rounding cannot decide: in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from foretoken.bench.methods import PLAIN, variants
from foretoken.llm import LLM
from foretoken.request import Request

TOKENS = 64


def differing(llm: LLM, drafting: Sequence[str], request: Request) -> list[str]:
    """Methods that answer a request otherwise than plain decoding within its first `TOKENS` tokens.

    Args:
        llm: in float32.
        drafting: methods, as for `variants`.
        request: at temperature 0, or judged by a rule that says the same whatever is drafted.
    """
    short = replace(request, max_new_tokens=min(request.max_new_tokens, TOKENS))
    texts = {name: _answer(one, short) for name, one in variants(llm, drafting, [short]).items()}
    return [name for name, text in texts.items() if text != texts[PLAIN]]


def _answer(llm: LLM, request: Request) -> list[int]:
    run = llm.run([request])
    for _ in run:
        pass
    return run.completions()[0].token_ids
