"""Evaluation prompts in training text: found by runs of words they share, and left out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from foretoken.train.texts import Document

WORD = re.compile(r"[^\W_]+")
RUN = 13  # words in a row that two texts share only if one has the other
WHOLE = 6  # shorter prompts than RUN count when a text holds all of them, if they have at least this many words
FACTOR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Overlap:
    """A training text that holds an evaluation prompt.

    Attributes:
        index: of the document.
        prompt: the evaluation prompt, or one of them.
    """

    index: int
    prompt: str


class EvaluationPrompts:
    """Looks for evaluation prompts in texts.

    Compared are lower-cased runs of letters and digits. A text overlaps if it shares `RUN` words in a row with a
    prompt, holds the whole of a prompt of `WHOLE` words or more, or asks just what a shorter one asks. Paraphrases
    are not found.

    Args:
        prompts: that must not be trained on.
    """

    def __init__(self, prompts: Iterable[str]) -> None:
        self._ids: dict[str, int] = {}
        self._short: dict[tuple[str, ...], str] = {}
        self._runs: dict[int, dict[int, str]] = {}  # by length: hash of a run -> prompt
        for prompt in prompts:
            words = WORD.findall(prompt.lower())
            self._short.setdefault(tuple(words), prompt)
            if len(words) < WHOLE:
                continue
            ids = [self._ids.setdefault(word, len(self._ids) + 1) for word in words]
            size = min(RUN, len(words))
            for run in _hashes(np.array(ids, dtype=np.uint64), size).tolist():
                self._runs.setdefault(size, {}).setdefault(run, prompt)
        self._sorted = {size: np.array(sorted(runs), dtype=np.uint64) for size, runs in self._runs.items()}

    def find(self, document: Document) -> str | None:
        """An evaluation prompt that a document holds, or None."""
        for part in (document.prompt, document.text):
            words = WORD.findall((part or "").lower())
            if words and (prompt := self._short.get(tuple(words))):
                return prompt
            ids = np.array([self._ids.get(word, 0) for word in words], dtype=np.uint64)
            for size, known in self._sorted.items():
                if len(ids) < size:
                    continue
                hashes = _hashes(ids, size)
                at = np.searchsorted(known, hashes).clip(max=len(known) - 1)
                hits = np.flatnonzero(known[at] == hashes)
                if len(hits):
                    return self._runs[size][int(hashes[hits[0]])]
        return None

    def split(self, documents: Sequence[Document]) -> tuple[list[Document], list[Overlap]]:
        """The documents that may be trained on, and what the others hold."""
        clean, found = [], []
        for index, document in enumerate(documents):
            prompt = self.find(document)
            if prompt is None:
                clean.append(document)
            else:
                found.append(Overlap(index, prompt))
        return clean, found


def _hashes(ids: np.ndarray, size: int) -> np.ndarray:
    """Hash of every run of `size` words ([W] uint64 -> [W - size + 1] uint64); a word no prompt has makes it 0."""
    windows = np.lib.stride_tricks.sliding_window_view(ids, size)
    powers = np.cumprod(np.full(size, FACTOR))
    mixed = (windows * (windows + FACTOR)) * powers
    return np.where((windows == 0).any(1), np.uint64(0), mixed.sum(1, dtype=np.uint64))
