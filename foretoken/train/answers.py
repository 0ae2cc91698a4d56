"""What the target says to prompts: the data of every training that imitates it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foretoken.llm import LLM
from foretoken.models.hf import HFModel
from foretoken.request import Sampling
from foretoken.train.agreement import Text
from foretoken.train.checkpoints import grown

GROUP = 16  # prompts answered in one batch, and the unit of resuming


def answers(
    llm: LLM,
    asked: Sequence[tuple[str, float]],
    max_new_tokens: int,
    seed: int,
    path: Path,
    progress: Callable[[int, int], None],
) -> list[Text]:
    """Sample an answer of the target to each prompt; finished groups of `path` are kept.

    Args:
        llm: the target; a draft is not used.
        asked: prompts, each with the temperature to answer at.
        max_new_tokens: length of an answer.
        seed: of everything random.
        path: a JSON line per answer.
        progress: told how many are done, and of how many.
    """
    plain = llm.using(draft="none")

    def make(items: range) -> list[dict[str, Any]]:
        requests = [
            plain.request(asked[i][0], Sampling(temperature=asked[i][1]), max_new_tokens=max_new_tokens, seed=seed + i)
            for i in items
        ]
        run = plain.run(requests)
        for _ in run:
            pass
        return [
            asdict(Text(list(request.prompt), list(done.token_ids), request.sampling.temperature))
            for request, done in zip(requests, run.completions(), strict=True)
        ]

    for done in grown(path, len(asked), GROUP, make):
        progress(done, len(asked))
    found = [Text(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    return [text for text in found if text.answer]


@contextmanager
def bare(model: Any) -> Iterator[Any]:
    """The `transformers` model inside a loaded one, with attention as the library does it, for the block."""
    assert isinstance(model, HFModel), "training runs on torch"
    inside, ours = model.model, model.model.config._attn_implementation
    inside.set_attn_implementation("sdpa")
    try:
        yield inside
    finally:
        inside.set_attn_implementation(ours)


@torch.no_grad()
def said_by(draft: Any, texts: Sequence[Text], max_new_tokens: int, stop: Sequence[int]) -> list[Text]:
    """What the draft itself says to the prompts of some texts, at temperature 1, from torch's generator.

    Args:
        draft: of `transformers`.
        texts: whose prompts to answer.
        max_new_tokens: length of an answer.
        stop: ids that end one.
    """
    longest = max(len(text.prompt) for text in texts)
    ids = torch.full((len(texts), longest), stop[0] if stop else 0)
    seen = torch.zeros(len(texts), longest, dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, longest - len(text.prompt) :] = torch.tensor(text.prompt)
        seen[row, longest - len(text.prompt) :] = 1
    training = draft.training
    draft.eval()
    out: Tensor = draft.generate(
        ids.to(draft.device),
        attention_mask=seen.to(draft.device),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(stop) or None,
        pad_token_id=stop[0] if stop else 0,
    )
    draft.train(training)
    found = []
    for text, row in zip(texts, out[:, longest:].tolist(), strict=True):
        end = next((n + 1 for n, token in enumerate(row) if token in stop), len(row))
        found.append(Text(text.prompt, row[:end], 1.0))
    return found
