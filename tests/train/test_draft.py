"""A draft learns from its target, by every way there is, and keeps what is accepted most."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import foretoken
from foretoken.errors import ConfigError
from foretoken.models.source import Checkpoint
from foretoken.train import imitation
from foretoken.train.agreement import Text, agreement, padded, scores
from foretoken.train.answers import bare, said_by
from foretoken.train.budget import Budget
from foretoken.train.checkpoints import Checkpoints
from foretoken.train.corpus import rows_to_judge
from foretoken.train.draft import train_draft
from foretoken.train.draft_recipe import Recipe
from foretoken.train.imitation import Imitation, imitation_loss, rewritten
from foretoken.train.pair import Data, train_pair
from foretoken.train.sizes import Size, llama
from foretoken.train.texts import Document, Source

ROWS = [
    {"question": f"What is {a} plus {b}?", "answer": f"{a} plus {b} is {a + b}."} for a in range(9) for b in range(9)
]
SECRET = "What is 3 plus 4?"  # short prompts count as a whole
TEXTS = [Text([1, 2, 3], [4, 5, 6], 0.0), Text([7], [8, 9], 1.0), Text([3, 3], [1], 1.0)]
QUICK = Recipe(budget=Budget(tokens=400), max_new_tokens=6, divergence="fkl")


class InterruptedRunError(Exception):
    """Stands for the process that is gone."""


def data() -> Data:
    return Data([Source.of_rows("sums", ROWS, "CC0-1.0")], [SECRET])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair that has seen a little."""
    out: Path = tmp_path_factory.mktemp("pair")
    train_pair(data(), Budget(tokens=60 * 256), 0, out)
    return out


@pytest.fixture
def llm(folder: Path) -> foretoken.LLM:
    return foretoken.load(str(folder / "target"), str(folder / "draft"), dtype="float32", backend="torch")


def tiny(seed: int) -> Any:
    torch.manual_seed(seed)
    return llama(Size(32, 1), 32).eval()


def test_scores_are_those_of_the_positions_before_the_answer() -> None:
    model = tiny(0)
    ids, scored = padded(TEXTS)
    found = scores(model, ids, scored)
    expected = []
    for text in TEXTS:
        logits = model(torch.tensor([[*text.prompt, *text.answer]])).logits[0]
        expected.append(logits[len(text.prompt) - 1 : -1])
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-5, rtol=1e-4)


def test_the_loss_does_not_depend_on_what_is_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    target, draft = tiny(0), tiny(1)
    for divergence in ("fkl", "ce"):
        recipe = Imitation(divergence=divergence)
        found = []
        for count in (1, 2, 9):
            monkeypatch.setattr(imitation, "ALIKE", count)
            found.append(imitation_loss(target, draft, TEXTS, recipe).item())
        assert found == pytest.approx([found[0]] * 3, rel=0.02)  # it may be taken in bfloat16
    ids, scored = padded(TEXTS)
    said = torch.cat([torch.tensor(text.answer) for text in TEXTS])
    expected = torch.nn.functional.cross_entropy(scores(draft, ids, scored), said).item()
    assert found[0] == pytest.approx(expected, rel=0.02)


def test_agreement_is_by_temperature_and_one_for_the_model_itself() -> None:
    target, draft = tiny(0), tiny(1)
    assert agreement(target, target, TEXTS, 2) == {0.0: 1.0, 1.0: pytest.approx(1.0)}
    found = agreement(target, draft, TEXTS, 2)
    ids, scored = padded(TEXTS[1:])
    with torch.no_grad():
        p, q = (scores(model, ids, scored).softmax(-1) for model in (target, draft))
    assert found[1.0] == pytest.approx(torch.minimum(p, q).sum(-1).mean().item(), abs=1e-5)


def test_engine_and_agreement_measure_the_same(llm: foretoken.LLM) -> None:
    """At temperature 0, drafting one token at a time, what is tested is what the greedy match rate counts."""
    one = llm.using(length="fixed:1")
    prompts = [f"What is {a} plus 5?" for a in range(4)]
    done = one.generate(prompts, max_new_tokens=12, ignore_eos=True)
    matched = 0.0
    with bare(llm.models[0]) as target, bare(llm.models[1]) as draft:
        for prompt, answer in zip(prompts, done, strict=True):
            at = 0
            while at < 12:  # a step emits the drafted token and one more, or one
                text = Text([*llm.tokenizer.encode(prompt), *answer.token_ids[:at]], answer.token_ids[at : at + 1], 0.0)
                hit = agreement(target, draft, [text], 1)[0.0]
                tested = at < 11  # there is no room for a draft before the last
                matched += hit if tested else 0
                at += 2 if hit and tested else 1
    assert matched == sum(answer.stats.counts.num_accepted for answer in done)


@pytest.mark.parametrize("divergence", ["fkl", "rkl", "jsd", "tvd", "ce"])
def test_the_loss_falls_and_only_the_draft_learns(divergence: str) -> None:
    target, draft = tiny(0), tiny(1)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    recipe = Imitation(divergence=divergence)
    optimizer = torch.optim.Adam(draft.parameters(), 1e-2)
    losses = []
    for _ in range(15):
        loss = imitation_loss(target, draft, TEXTS, recipe)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(weight.grad is None for weight in target.parameters())
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_tvd_is_what_is_rejected_at_temperature_1() -> None:
    target, draft = tiny(0), tiny(1)
    warm = [replace(text, temperature=1.0) for text in TEXTS]
    loss = imitation_loss(target, draft, warm, Imitation(divergence="tvd"))
    # The loss may be taken in bfloat16, where the processor multiplies it.
    assert 1 - loss.item() == pytest.approx(agreement(target, draft, warm, 3)[1.0], abs=0.02)


def test_the_draft_writes_with_its_current_weights() -> None:
    draft = tiny(1)
    texts = [Text([1, 2, 3], [4], 0.0), Text([5], [6], 0.0)] * 20
    torch.manual_seed(0)
    own = said_by(draft, texts, 5, [9])
    assert all(text.prompt == old.prompt for text, old in zip(own, texts, strict=True))
    assert all(9 not in text.answer[:-1] and 1 <= len(text.answer) <= 5 for text in own)
    with torch.no_grad():  # a draft that knows one word
        draft.get_output_embeddings().weight.zero_()
        draft.get_input_embeddings().weight[:, 0] = 1.0
        draft.get_input_embeddings().weight[7] = 60.0
    assert {tuple(text.answer) for text in said_by(draft, texts, 3, [9])} == {(7, 7, 7)}
    mixed = rewritten(draft, texts, Imitation(divergence="fkl", on_policy=0.5, max_new_tokens=3), [9])
    share = sum(text.answer == [7, 7, 7] for text in mixed) / len(mixed)
    assert 0.2 < share < 0.8
    assert rewritten(draft, texts, Imitation(divergence="fkl"), [9]) == texts


@pytest.mark.parametrize(
    "recipe",
    [
        replace(QUICK, divergence="jsd", on_policy=0.5),
        replace(QUICK, method="prune", layers=1, divergence=None),
        replace(QUICK, method="scratch", width=32, layers=1, divergence=None),
    ],
    ids=["distill", "prune", "scratch"],
)
def test_every_method_gives_a_draft_that_drafts(llm: foretoken.LLM, tmp_path: Path, recipe: Recipe) -> None:
    card = train_draft(llm, data(), recipe, tmp_path)
    assert [row["temperature"] for row in card["acceptance"]] == [0.0, 1.0]
    assert card["data"]["overlap"]["num_excluded"] == 1
    assert card["learning"]["divergence"] == recipe.imitation().divergence
    made = foretoken.load(llm.target.location, str(tmp_path), dtype="float32", backend="torch")
    fast = made.using(length="fixed:2").generate("What is 3 plus 4?", max_new_tokens=8)
    assert fast.token_ids == made.using(draft="none").generate("What is 3 plus 4?", max_new_tokens=8).token_ids
    assert "CC0-1.0" in (tmp_path / "README.md").read_text()
    assert Checkpoint(str(tmp_path), "draft").stop_token_ids == llm.target.stop_token_ids


def test_answers_of_the_target_survive_an_interruption(llm: foretoken.LLM, tmp_path: Path) -> None:
    card = train_draft(llm, data(), QUICK, tmp_path / "whole")

    def killed(at: str, done_at: int) -> None:
        def tell(stage: str, done: int, of: int, detail: str = "") -> None:
            if stage == at and done >= done_at:
                raise InterruptedRunError

        with pytest.raises(InterruptedRunError):
            train_draft(llm, data(), QUICK, tmp_path / "again", tell)

    killed("the target answers, to select by", 1)
    killed("the target answers, to learn from", 16)
    assert train_draft(llm, data(), QUICK, tmp_path / "again") == card
    first, second = (tmp_path / run / "model.safetensors" for run in ("whole", "again"))
    assert first.read_bytes() == second.read_bytes()


def test_a_time_is_turned_into_answers_and_steps_once(llm: foretoken.LLM, tmp_path: Path) -> None:
    recipe = replace(QUICK, method="scratch", width=32, layers=1, divergence="tvd", budget=Budget(seconds=1e-6))
    card = train_draft(llm, data(), recipe, tmp_path)
    assert (card["learning"]["num_answers"], card["learning"]["steps"]) == (16, 1)  # the least there is
    for state in (tmp_path / "work").glob("*/round-*.pt"):
        state.unlink()
    assert train_draft(llm, data(), recipe, tmp_path) == card


def test_the_best_round_is_kept(llm: foretoken.LLM, tmp_path: Path) -> None:
    card = train_draft(llm, data(), replace(QUICK, budget=Budget(tokens=6000), learning_rate=1e-3), tmp_path)
    rounds = [one["acceptance"] for one in card["rounds"]]
    after = sum(row["after"] for row in card["acceptance"]) / 2
    assert len(rounds) > 1
    assert after == pytest.approx(max(rounds))
    assert after > sum(row["before"] for row in card["acceptance"]) / 2
    lossy = card["lossy"]
    assert lossy[0]["distance"] == pytest.approx(0, abs=1e-5)
    assert [row["acceptance"] for row in lossy] == sorted(row["acceptance"] for row in lossy)
    texts = [json.loads(line) for line in (tmp_path / "work" / "answers.jsonl").read_text().splitlines()]
    assert {text["temperature"] for text in texts} == {0.0, 1.0}
    assert any(set(text["answer"]) & llm.target.stop_token_ids for text in texts)


def test_weights_go_back_to_where_they_started_as_far_as_asked(llm: foretoken.LLM, tmp_path: Path) -> None:
    """The training is the same for every share, so its folder serves them all."""
    recipe = replace(QUICK, learning_rate=1e-2)
    cards, drafts = {}, {}
    for share in (0.0, 0.5, 1.0):
        cards[share] = train_draft(llm, data(), replace(recipe, interpolate=share), tmp_path)
        drafts[share] = load_file(tmp_path / "model.safetensors")
    assert llm.draft is not None
    start = load_file(Path(llm.draft.location) / "model.safetensors")
    newest = Checkpoints(tmp_path / "work" / "imitation").newest()
    assert newest is not None
    best = newest[1]["best"]["net"]
    for name, weight in start.items():
        assert not torch.equal(drafts[0.0][name], weight)
        assert torch.equal(drafts[0.5][name], best[name].lerp(weight.float(), 0.5).bfloat16())
        assert torch.equal(drafts[1.0][name], weight)
    assert [card["recipe"]["interpolate"] for card in cards.values()] == [0.0, 0.5, 1.0]
    losses = [card["held_out_loss"] for card in cards.values()]
    assert len({loss["before"] for loss in losses}) == 1
    assert len({loss["after"] for loss in losses}) == 3
    assert losses[2]["after"] == losses[2]["before"]
    for row in cards[1.0]["acceptance"]:
        assert row["after"] == row["before"]


def test_held_out_loss_is_that_of_the_answers_in_the_data(llm: foretoken.LLM, tmp_path: Path) -> None:
    loss = train_draft(llm, data(), replace(QUICK, learning_rate=1e-2), tmp_path)["held_out_loss"]
    asked = {str(json.loads(line)["prompt"]) for line in (tmp_path / "work" / "dev.jsonl").read_text().splitlines()}
    held = [row for row in ROWS if str(list(llm.tokenizer.encode(row["question"]))) in asked]
    assert loss["num_texts"] == len(held) == len(asked)
    documents = [Document(row["question"], row["answer"]) for row in held]
    rows = rows_to_judge(llm.target.tokenizer.backend, documents, 256).long()
    assert llm.draft is not None
    for key, folder in (("before", llm.draft.location), ("after", str(tmp_path))):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        expected = torch.nn.functional.cross_entropy(model(rows[:, :-1]).logits.flatten(0, 1), rows[:, 1:].flatten())
        assert loss[key] == pytest.approx(expected.item(), rel=0.01)  # of one, weights are written in bfloat16
    clean, _ = Data(data().sources, held_out=documents).clean(0, 1e9)
    assert len(clean) == len(ROWS) - len(held)
    assert not {document.prompt for document in clean} & {document.prompt for document in documents}


def test_prompts_without_answers_have_no_held_out_loss(llm: foretoken.LLM, tmp_path: Path) -> None:
    asked = Source.of_rows("questions", [{"prompt": row["question"]} for row in ROWS])
    card = train_draft(llm, Data([asked]), QUICK, tmp_path)
    assert card["held_out_loss"] == {"before": None, "after": None, "num_texts": 0}


def test_a_draft_that_got_worse_is_no_secret(
    llm: foretoken.LLM, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = train_draft(llm, data(), replace(QUICK, learning_rate=1.0), tmp_path)
    assert sum(row["after"] - row["before"] for row in card["acceptance"]) < 0
    assert "started from is accepted more often" in caplog.text


def test_what_cannot_be_trained_is_refused(llm: foretoken.LLM, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too few"):
        train_draft(llm, Data([Source.of_rows("few", ROWS[:5])]), QUICK, tmp_path)
    alone = foretoken.load(llm.target.location, weights=False)
    with pytest.raises(ConfigError, match="starts from a draft"):
        train_draft(alone, data(), QUICK, tmp_path)
    for bad in (
        {"method": "magic"},
        {"divergence": "kl"},
        {"beta": 0.0, "divergence": "jsd"},
        {"on_policy": 1.5},
        {"on_policy": 0.5, "divergence": "ce"},
        {"temperatures": ()},
        {"width": 33},
        {"layers": 0},
        {"ffn": 0.0},
        {"interpolate": -0.1},
        {"interpolate": 1.1},
        {"interpolate": float("nan")},
        {"interpolate": 0.5, "method": "scratch"},
    ):
        with pytest.raises(ConfigError):
            replace(QUICK, **bad)  # type: ignore[arg-type]
