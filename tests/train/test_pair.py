"""From text to two models that work together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import foretoken
from foretoken.errors import ConfigError, RequestError
from foretoken.train.budget import Budget
from foretoken.train.corpus import batches, pack, shuffled, written
from foretoken.train.pair import Data, train_pair
from foretoken.train.sizes import LADDER, Size, afforded
from foretoken.train.texts import Document, Source
from foretoken.train.vocabulary import train_tokenizer

SECRET = "A secret question about seven grey boats that sail at dawn: how many boats are there at noon?"
ROWS = [
    {"question": f"What is {a} plus {b}?", "answer": f"{a} plus {b} is {a + b}."} for a in range(30) for b in range(9)
]
DOCUMENTS = Source.of_rows("sums", ROWS).documents()


def data() -> Data:
    return Data(
        [Source.of_rows("sums", [*ROWS, {"text": f"So he asked. {SECRET}"}], "CC0-1.0")], [SECRET, "Name a fish."]
    )


def test_budgets_are_times_or_tokens() -> None:
    assert Budget.parse("90s") == Budget(seconds=90)
    assert Budget.parse("3m") == Budget(seconds=180)
    assert Budget.parse("2_000") == Budget.parse("2e3") == Budget(tokens=2000)
    for bad in ("3M", "", "ten", "0", "0m", "-5", "inf", "1d"):
        with pytest.raises(ConfigError, match="--budget"):
            Budget.parse(bad)


def test_a_larger_budget_buys_a_larger_pair() -> None:
    assert afforded(lambda rung: 0) == LADDER[0]
    assert afforded(lambda rung: 1e15) == LADDER[-1]
    chosen = [LADDER.index(afforded(lambda rung, t=t: t)) for t in (1e5, 1e7, 1e8, 1e9)]  # type: ignore[misc]
    assert chosen == sorted(set(chosen))
    assert all(rung.draft.num_weights < rung.target.num_weights / 3 for rung in LADDER)


def test_the_tokenizer_keeps_every_text_and_marks_turns() -> None:
    tokenizer = train_tokenizer(DOCUMENTS, 400, 0)
    assert len(tokenizer) <= 400
    for text in ("What is 31 plus 2?", "né 漢字 \U0001f600\n\t  end", ""):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert written(tokenizer, Document("Hi", "Ho")) == "<|user|>Hi\n<|assistant|>Ho<|endoftext|>"
    assert written(tokenizer, Document(None, "Ho")) == "Ho<|endoftext|>"
    ids = tokenizer(written(tokenizer, Document("2", "34")))["input_ids"]
    assert [tokenizer.convert_ids_to_tokens(i) for i in ids][-3:] == ["3", "4", "<|endoftext|>"]
    tokenizer.chat_template = None
    assert written(tokenizer, Document("Hi", "Ho")) == "Hi\nHo<|endoftext|>"


def test_rows_hold_every_token_once_and_overlap_by_one() -> None:
    tokenizer = train_tokenizer(DOCUMENTS, 400, 0)
    rows = pack(tokenizer, DOCUMENTS, 32)
    stream = [i for one in DOCUMENTS for i in tokenizer(written(tokenizer, one))["input_ids"]]
    assert rows[:, :-1].flatten().tolist() == stream[: rows.shape[0] * 32]
    assert torch.equal(rows[1:, 0], rows[:-1, -1])
    with pytest.raises(RequestError, match="too few to train on"):
        pack(tokenizer, DOCUMENTS[:1], 32)


def test_every_pass_reads_every_row_once_wherever_it_is_resumed() -> None:
    steps = list(batches(10, 4, 0, 5, seed=1))
    seen = torch.cat(steps).tolist()
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]
    assert all(torch.equal(a, b) for a, b in zip(steps[3:], batches(10, 4, 3, 2, seed=1), strict=True))


def test_sampling_takes_as_much_as_is_needed() -> None:
    some = shuffled(DOCUMENTS, 0, 500)
    sizes = [len(d.text) + len(d.prompt or "") for d in some]
    assert sum(sizes[:-1]) <= 500 < sum(sizes)
    assert some == shuffled(DOCUMENTS, 0)[: len(some)] != shuffled(DOCUMENTS, 1)[: len(some)]


def test_a_pair_learns_and_generates(tmp_path: Path) -> None:
    budget = Budget(tokens=110 * 256)
    card = train_pair(data(), budget, 0, tmp_path)
    assert card["data"]["overlap"] == {"num_evaluation_prompts": 2, "num_excluded": 1, "examples": [SECRET]}
    for role in ("target", "draft"):
        losses = [one["validation_loss"] for one in card[role]["rounds"]]
        assert len(losses) == 2
        assert card[role]["validation_loss"] == min(losses) < 5
        assert card[role]["tokens"] == 110 * 256
        text = (tmp_path / role / "README.md").read_text()
        assert "CC0-1.0" in text
        assert card["data"]["sources"][0]["sha256"] in text

    with pytest.raises(ConfigError, match="holds another training"):
        train_pair(data(), budget, 1, tmp_path)

    model = foretoken.load(str(tmp_path / "target"), str(tmp_path / "draft"), dtype="float32", backend="torch")
    fast = model.using(length="fixed:3").generate("What is 3 plus 4?", max_new_tokens=12)
    assert fast.token_ids == model.using(draft="none").generate("What is 3 plus 4?", max_new_tokens=12).token_ids
    assert fast.stats.counts.num_drafted > 0


def test_a_time_is_turned_into_steps_once(tmp_path: Path) -> None:
    card = train_pair(data(), Budget(seconds=0.01), 0, tmp_path)
    plan = json.loads((tmp_path / "work" / "steps.json").read_text())
    assert card["target"]["steps"] == plan["steps"] == 1
    assert train_pair(data(), Budget(seconds=0.01), 0, tmp_path) == card


def test_wider_models_take_smaller_steps() -> None:
    rates = [Size(width, 1).learning_rate for width in (32, 64, 256, 768)]
    assert rates == sorted(rates, reverse=True)


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too few to train on"):
        train_pair(Data([Source.of_rows("one", ROWS[:1])]), Budget(tokens=100), 0, tmp_path)
