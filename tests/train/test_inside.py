"""Training what drafts inside a target: what is learnt from, what is learnt, and what survives a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

import foretoken
from foretoken.errors import ConfigError
from foretoken.models.block_heads import BlockHeads, BlockShape
from foretoken.models.hf import append_tokens
from foretoken.models.rescoring import Independent
from foretoken.models.source import Checkpoint
from foretoken.train import blockwise, falcon, lookahead
from foretoken.train.agreement import Text, padded
from foretoken.train.answers import bare
from foretoken.train.blockwise import Places, accepted, places
from foretoken.train.inside import Recipe as InsideRecipe
from foretoken.train.inside import prepare, read, target_of
from foretoken.train.lookahead import cut, look
from foretoken.train.rounds import silent
from foretoken.train.texts import Source

PROMPTS = [f"Tell me a long story about {a + 2} brown dogs." for a in range(24)]
SOURCES = [Source.of_rows("stories", [{"prompt": prompt} for prompt in PROMPTS], "ours")]
SMALL = {"texts": 20, "max_new_tokens": 9, "rounds": 2, "steps": 2, "batch": 4}
HEADS = blockwise.Recipe(**SMALL, heads=2, width=8, memory=4)  # type: ignore[arg-type]
FALCON = falcon.Recipe(**SMALL, width=8)  # type: ignore[arg-type]
AHEAD = lookahead.Recipe(**SMALL, ahead=2, cuts=3)  # type: ignore[arg-type]
TEXTS = [Text([5, 6, 7], [11, 12, 13, 14], 0.0), Text([9], [8, 7, 6, 5, 4, 3], 0.0)]


@pytest.fixture(scope="module")
def llm() -> foretoken.LLM:
    return foretoken.load(draft="none", length="fixed", dtype="float32", backend="torch")


@pytest.mark.parametrize(
    ("trainer", "recipe"),
    [(blockwise, HEADS), (falcon, FALCON), (lookahead, AHEAD)],
    ids=["blockwise", "falcon", "pass"],
)
def test_training_is_reproducible_and_sampling_goes_on_after_a_torn_line(
    llm: foretoken.LLM, tmp_path: Path, trainer: ModuleType, recipe: InsideRecipe
) -> None:
    whole = trainer.train(llm, SOURCES, [], recipe, tmp_path / "whole")
    assert whole.card["num_texts"] == 20
    assert whole.card["data"]["sources"][0]["licence"] == "ours"
    assert len(whole.card["accepted_by_round"]) == 2
    # Killed while sampling, with a torn line.
    folder = tmp_path / "torn"
    folder.mkdir()
    lines = (tmp_path / "whole" / "answers.jsonl").read_text().splitlines(keepends=True)
    (folder / "answers.jsonl").write_text("".join(lines[:17]) + lines[17][:30])
    again = trainer.train(llm, SOURCES, [], recipe, folder)
    assert again.card == whole.card
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_no_prompt_holds_an_evaluation_prompt_and_a_folder_has_one_training(llm: foretoken.LLM, tmp_path: Path) -> None:
    told = prepare(llm, SOURCES, [PROMPTS[3]], HEADS, tmp_path, silent)
    seen = {llm.tokenizer.decode(text.prompt) for text in [*told.train, *told.dev]}
    assert told.card["data"]["overlap"] == {
        "num_evaluation_prompts": 1,
        "num_excluded": 1,
        "examples": [PROMPTS[3]],
    }
    assert not any(PROMPTS[3] in text for text in seen)
    with pytest.raises(ConfigError, match="holds another training"):
        prepare(llm, SOURCES, [], replace(HEADS, seed=5), tmp_path, silent)
    with pytest.raises(ConfigError, match="too few"):
        prepare(llm, [Source.of_rows("few", [{"prompt": "Hi"}])], [], HEADS, tmp_path / "few", silent)


@pytest.mark.parametrize("bad", [{"texts": 3}, {"rounds": 0}, {"temperatures": ()}, {"heads": 0}, {"order": 4}])
def test_what_is_no_recipe_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(HEADS, **bad)  # type: ignore[arg-type]
    assert caught.value.hint


# Heads ---------------------------------------------------------------------------------------------------------------


def test_heads_learn_the_law_of_the_places_they_speak_of(llm: foretoken.LLM) -> None:
    """The loss is least, head by head, when each says what the target says at its place."""
    target = target_of(llm)
    ids, scored = padded(TEXTS)
    scores = read(target, ids)
    assert scores.hidden is not None

    class Knowing(BlockHeads):
        """Says the target's law `shift` places after the state."""

        shift = 1

        def head(self, hidden: torch.Tensor, number: int) -> torch.Tensor:
            at = (scores.hidden.float()[:, :, None] - hidden[None, None]).abs().sum(-1).argmin(1)  # type: ignore[union-attr]
            row = torch.tensor([0 if self.of(hidden, r, 0) else 1 for r in range(len(hidden))])
            places = at[row, torch.arange(len(hidden))] + number + self.shift
            return scores.logits[row, places.clamp_max(ids.shape[1] - 1)]

        def of(self, hidden: torch.Tensor, r: int, text: int) -> bool:
            return bool((scores.hidden[text].float() - hidden[r]).abs().sum(-1).min() < 1e-6)  # type: ignore[union-attr]

    net = Knowing(BlockShape(target.hidden_size, target.vocab_size, 2, 4, 4))
    found = []
    for net.shift in (0, 1, 2):
        found.append(blockwise.loss(net, scores.hidden.float(), scores.logits, ids, scored).item())
    assert found[1] < min(found[0], found[2])


def test_places_are_states_roots_and_what_follows_them(llm: foretoken.LLM) -> None:
    target = target_of(llm)
    at = places(target, TEXTS[1:], replace(HEADS, order=2))
    ids = [9, 8, 7, 6, 5, 4, 3]
    hidden = read(target, torch.tensor([ids])).hidden
    assert hidden is not None
    assert at.known.tolist() == [[6], [5]]
    assert at.actual.tolist() == [[5, 4], [4, 3]]
    torch.testing.assert_close(at.hidden, hidden[0, 2:4].float(), atol=1e-4, rtol=1e-4)
    with pytest.raises(ConfigError, match="shorter than a block"):
        places(target, TEXTS[:1], replace(HEADS, heads=9))


def test_accepted_tokens_are_counted_up_to_the_first_wrong_one() -> None:
    class Fixed(Independent):
        def __init__(self) -> None:
            pass

        def score(self, tokens: object) -> torch.Tensor:
            return torch.eye(5)[[len(tokens)] * 3]  # type: ignore[arg-type]  # says 1, 2, 3

    actual = torch.tensor([[1, 2, 3], [1, 0, 3], [0, 2, 3]])
    assert accepted(Fixed(), Places(torch.zeros(3, 1), actual[:, :1], actual)) == pytest.approx((3 + 1 + 0) / 3)


# Look-ahead embeddings -----------------------------------------------------------------------------------------------


def test_what_is_trained_is_what_drafts(llm: foretoken.LLM) -> None:
    """Look-ahead tokens read behind a cut say in training what the target with added tokens says when it decodes."""
    rows = torch.randn(2, 384, generator=torch.Generator().manual_seed(0)) * 0.05
    ids, scored = padded(TEXTS)
    torch.manual_seed(0)
    cuts, there = cut(scored, 3, 2)
    with bare(target_of(llm)) as model, torch.no_grad():
        laws, said = look(model, rows, ids, cuts)
    more = Checkpoint("builtin:pair", "target").load("float32", "cpu", None, "torch", rows)
    for row, text in enumerate(TEXTS):
        whole = [*text.prompt, *text.answer]
        torch.testing.assert_close(
            laws[row, : len(whole)], read(more, torch.tensor([whole])).logits[0], atol=1e-3, rtol=1e-3
        )
        for number, place in enumerate(cuts[row].tolist()):
            behind = read(more, torch.tensor([[*whole[: place + 1], 4096, 4097]])).logits[0, -2:]
            torch.testing.assert_close(said[row, number], behind, atol=1e-3, rtol=1e-3)
            stands = [place + 1, place + 2]
            assert there[row, number].tolist() == [len(text.prompt) - 1 <= s < len(whole) - 1 for s in stands]


def test_added_tokens_leave_the_output_embedding_alone(llm: foretoken.LLM) -> None:
    model = Checkpoint("builtin:pair", "target")._read(torch.float32)
    shared = model.get_output_embeddings().weight
    assert model.get_input_embeddings().weight is shared
    append_tokens(model, torch.ones(2, 384))
    assert model.get_output_embeddings().weight is shared
    assert model.get_input_embeddings().weight.shape[0] == shared.shape[0] + 2
