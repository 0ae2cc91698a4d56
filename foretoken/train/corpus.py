"""Documents -> ids in rows of one length, with nothing wasted on padding."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foretoken.errors import RequestError
from foretoken.train.texts import Document

HELD_OUT = 0.02  # share of the documents that only the validation loss reads
MOST_HELD_OUT = 64  # rows of them, or validating would take longer than training
CHARS_PER_TOKEN = 6  # more than tokenizers need, so that enough text is taken
BATCH = 1000  # documents tokenized at a time


def shuffled(documents: Sequence[Document], seed: int, most_chars: float = float("inf")) -> list[Document]:
    """Documents in a random order, as many as have this many characters together."""
    order = list(documents)
    random.Random(seed).shuffle(order)
    total = 0
    for count, document in enumerate(order):
        total += len(document.prompt or "") + len(document.text)
        if total > most_chars:
            return order[: count + 1]
    return order


def written(tokenizer: Any, document: Document) -> str:
    """A document as the model reads it: in the chat template if it has a prompt, ended by the end-of-text token.

    Args:
        tokenizer: of `transformers`.
        document: what to write.
    """
    end = tokenizer.eos_token or ""
    if document.prompt is None:
        return f"{tokenizer.bos_token or ''}{document.text}{end}"
    if not getattr(tokenizer, "chat_template", None):
        return f"{tokenizer.bos_token or ''}{document.prompt}\n{document.text}{end}"
    turns = [{"role": "user", "content": document.prompt}, {"role": "assistant", "content": document.text}]
    text: str = tokenizer.apply_chat_template(turns, tokenize=False)
    return text


def pack(tokenizer: Any, documents: Sequence[Document], context: int) -> Tensor:
    """Documents end to end, cut into rows.

    Args:
        tokenizer: of `transformers`.
        documents: in the order in which they are packed.
        context: T, tokens that the model reads at once.

    Returns:
        [M, T+1] int32. Inputs are all but the last column, what follows them all but the first.

    Raises:
        RequestError: they do not fill a row.
    """
    ids: list[np.ndarray] = []
    for start in range(0, len(documents), BATCH):
        texts = [written(tokenizer, document) for document in documents[start : start + BATCH]]
        ids += [
            np.array(one, np.int32) for one in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        ]
    stream = np.concatenate(ids) if ids else np.zeros(0, np.int32)
    rows = (len(stream) - 1) // context
    if rows < 1:
        raise RequestError(
            f"{len(stream)} tokens are too few to train on", hint=f"give more text; {context + 1} is the least"
        )
    starts = np.arange(rows)[:, None] * context
    return torch.from_numpy(stream[starts + np.arange(context + 1)])


def held_out(documents: Sequence[Document]) -> tuple[list[Document], list[Document]]:
    """Documents to validate on, and the others."""
    count = max(1, round(HELD_OUT * len(documents)))
    return list(documents[:count]), list(documents[count:])


def rows_to_learn_and_judge(
    tokenizer: Any, learn: Sequence[Document], judge: Sequence[Document], context: int
) -> tuple[Tensor, Tensor]:
    """Both parts packed: see `pack` and `rows_to_judge`."""
    return pack(tokenizer, learn, context), rows_to_judge(tokenizer, judge, context)


def rows_to_judge(tokenizer: Any, judge: Sequence[Document], context: int) -> Tensor:
    """Held-out documents packed (see `pack`), no more than is worth the time; a short text is repeated to fill a row.

    Returns:
        [D, T+1] int32.
    """
    chars = sum(len(document.text) for document in judge)
    enough = list(judge) * (1 + context * CHARS_PER_TOKEN // max(chars, 1))
    return pack(tokenizer, enough, context)[:MOST_HELD_OUT]


def batches(num_rows: int, batch: int, first: int, count: int, seed: int) -> Iterator[Tensor]:
    """Indices of the rows of some steps; every pass over the rows has an order of its own.

    Args:
        num_rows: M.
        batch: R, rows of a step.
        first: step to begin with.
        count: steps.
        seed: of the orders.

    Yields:
        [R] int64, a function of the step alone.
    """
    orders: dict[int, Tensor] = {}
    for step in range(first, first + count):
        places = range(step * batch, (step + 1) * batch)
        for epoch in {place // num_rows for place in places} - orders.keys():
            generator = torch.Generator().manual_seed(seed * 1000 + epoch)
            orders[epoch] = torch.randperm(num_rows, generator=generator)
        yield torch.stack([orders[place // num_rows][place % num_rows] for place in places])
