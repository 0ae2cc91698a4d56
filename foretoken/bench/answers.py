"""Answers in the format of Spec-Bench, so that its own scripts can judge a run.

Read by `evaluation/speed.py` (`category`, and of the first choice `new_tokens`, `wall_time`, `accept_lengths`, `turns`)
and `evaluation/equal.py` (`turns`) of https://github.com/hemingkx/Spec-Bench. As there, wall time includes prefill, and
an accept length counts all tokens a step emitted. For plain decoding `speed.py` counts tokens from the text, less one
for a begin-of-sequence token, and so finds one too few per answer with a tokenizer that adds none.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from foretoken.bench.run import Sample

Question = Mapping[str, Any]


def write_answers(
    folder: Path, samples: Sequence[Sample], questions: Sequence[Question], decode: Callable[[Sequence[int]], str]
) -> None:
    """Write one file per method, `fixed-2.jsonl` for `fixed:2`, with one line per prompt and one choice per repeat.

    Args:
        folder: made if it is not there; files of the same names are replaced.
        samples: of all methods.
        questions: by prompt, its `id` and `category`, each of which may be None.
        decode: token ids -> text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for method in dict.fromkeys(s.method for s in samples):
        own = [s for s in samples if s.method == method]
        lines = [
            _answer(method, index, question, [s for s in own if s.prompt == index], decode)
            for index, question in enumerate(questions)
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / f"{file_name(method)}.jsonl").write_text(text, encoding="utf-8")


def file_name(method: str) -> str:
    """A method's name as a file can carry it."""
    return re.sub(r"[^\w.+-]", "-", method)


def _answer(
    method: str, index: int, question: Question, samples: Sequence[Sample], decode: Callable[[Sequence[int]], str]
) -> dict[str, Any]:
    return {
        "question_id": index if question["id"] is None else question["id"],
        "category": question["category"],
        "answer_id": f"{method}-{index}",
        "model_id": method,
        "choices": [
            {
                "index": s.repeat,
                "turns": [decode(s.token_ids).strip()],
                "decoding_steps": [s.counts.num_target_forwards],
                "new_tokens": [s.counts.num_tokens],
                "wall_time": [s.prefill_s + s.decode_s],
                "accept_lengths": emitted(s),
            }
            for s in samples
        ],
        "tstamp": time.time(),
    }


def emitted(sample: Sample) -> list[int]:
    """Tokens that every step emitted: those accepted and one more, which the last step may have cut."""
    lengths = [accepted + 1 for _, accepted, *_ in sample.steps]
    lengths[-1] -= sample.counts.num_cut
    return lengths
