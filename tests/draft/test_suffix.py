"""Look-ups in the text itself: what is proposed, how likely it is said to be, and what it learns from."""

from __future__ import annotations

import pytest

from foretoken.costs import GivenCosts
from foretoken.draft.suffix import CHANCE, LEAST, PRIOR, Said, Suffix
from foretoken.errors import ConfigError
from foretoken.length.fixed import Fixed
from foretoken.length.renewal import Renewal
from foretoken.registry import find
from foretoken.request import Request, Sampling
from foretoken.types import Drawn
from tests.contract.methods import Choice, Setup
from tests.contract.table import TableModel, only, random_table
from tests.length.by_hand import batch

NOTHING: frozenset[int] = frozenset()


def proposed(text: list[int], most: int = 8, ends: frozenset[int] = NOTHING, prompt: int | None = None) -> list[int]:
    """What is proposed after a text, all of it the prompt unless told."""
    said = Said(len(text) if prompt is None else prompt, 0.0)
    said.read(text)
    return said.go_on(text, most, ends)[0]


def test_the_longest_known_context_decides_and_then_the_last_time() -> None:
    assert proposed([1, 2, 7, 5, 2, 8, 1, 2], most=1) == [7]  # 1 2 was followed by 7, although 2 was by 8 since
    assert proposed([2, 7, 5, 2, 8, 6, 2], most=1) == [8]
    assert proposed([1, 2, 3, 4]) == []  # nothing comes again


def test_it_goes_on_from_what_it_proposed() -> None:
    text = [*range(10, 18), 99, *range(10, 12)]
    assert proposed(text, most=4) == [12, 13, 14, 15]
    assert proposed([5, 5, 5], most=3) == [5, 5, 5]


def test_nothing_follows_the_end_of_a_text() -> None:
    assert proposed([1, 2, 3, 4, 9, 1], ends=frozenset({3})) == [2, 3]


def test_a_guess_that_is_hardly_ever_right_is_not_named() -> None:
    text = [1, 2] * 6 + [3, 1, 4, 1]
    said = Said(0, 0.0)
    said.read(text)
    _, chances = said.go_on(text, 8, NOTHING)
    survival = 1.0
    for chance in chances:
        survival *= chance
    assert survival >= LEAST


def test_a_context_that_kept_its_word_is_trusted_more() -> None:
    def chance(text: list[int]) -> float:
        said = Said(len(text), 0.0)  # nothing is learnt from prompts
        said.read(text)
        return said.go_on(text, 1, NOTHING)[1][0]

    wrong, once, twice, often = (
        chance(text)
        for text in ([1, 2, 7, 1, 3, 8, 1], [1, 2, 7, 1], [1, 2, 7, 1, 2, 8, 1], [1, 2, 7, 1, 2, 8, 1, 2, 9, 1])
    )
    assert [wrong, once, twice, often] == pytest.approx(list(PRIOR[-1]))


def test_what_was_right_and_wrong_is_learnt_from_the_answer_alone() -> None:
    text = [1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 3, 1]
    lessons = []
    for prompt in (len(text), 2):
        said = Said(prompt, 0.0)
        said.read(text)
        lessons.append(said._asked)
    assert lessons[0] == [[3.0] * 4] * 4
    assert sum(map(sum, lessons[1])) == pytest.approx(4 * 4 * 3.0 + 10)  # all but the first two, the 3 and what is new


def test_reading_bit_by_bit_comes_to_the_same() -> None:
    text = [int(digit) for digit in "31415926535897932384626433832795028841971693993751"]
    whole, pieces = Said(5, 0.0), Said(5, 0.0)
    whole.read(text)
    for end in (3, 4, 11, 12, 30, len(text)):
        pieces.read(text[:end])
    assert whole.go_on(text, 8, NOTHING) == pieces.go_on(text, 8, NOTHING)
    assert whole._right == pieces._right


def test_a_warm_request_repeats_itself_less() -> None:
    text = [1, 2, 7, 1]
    chances = []
    for temperature in (0.0, 1.0, 5.0):
        said = Said(4, temperature)
        said.read(text)
        chances.append(said.go_on(text, 1, NOTHING)[1][0])
    assert chances[1] == chances[2] == pytest.approx((1 - CHANCE) * chances[0])


def test_a_model_that_goes_in_circles_is_read_several_tokens_at_a_time() -> None:
    table = only(random_table(1, 3), [1])
    for length in (Choice(Fixed, {"k": 4}), Choice(Renewal)):
        methods = (Choice(find(*name)) for name in (("shape", "chain"), ("accept", "rejection")))
        engine = Setup(Choice(Suffix), length, *methods).engine(TableModel(table), TableModel(table))
        (row,) = engine.start([Request((0,), Sampling(), 40)])
        while engine.batch.rows:
            engine.step()
        assert row.output == [1] * 40
        assert row.counts.num_target_forwards < 16
        assert row.counts.num_draft_forwards == 0
        assert row.counts.num_accepted > 24


def test_a_draft_is_a_chain_of_point_masses_that_cost_nothing() -> None:
    drafter, rows = Suffix(Suffix.Config(most=3)), batch(2)
    rows.costs = GivenCosts(0.1)
    rows.rows[0].tokens[:] = [1, 2, 3, 4, 1]
    draft = drafter.draft(rows, Fixed(), Choice(find("shape", "chain")).make(), 64)
    assert draft.tokens.tolist() == [[1, 2, 3, 4], [0, 0, 0, 0]]
    assert (draft.sizes, draft.num_forwards) == ([4, 1], [0, 0])
    assert (draft.drawn, draft.q, draft.chain) == (Drawn.POINT, None, True)
    assert draft.prob is not None
    assert draft.prob[0][0] == 1
    assert draft.prob[0][1:] == pytest.approx([PRIOR[3][1], PRIOR[2][1], PRIOR[2][1]])
    few = drafter.draft(rows, Fixed(), Choice(find("shape", "chain")).make(), 2)
    assert few.tokens.tolist() == [[1, 2], [0, 0]]


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="most cannot be 0"):
        Suffix.Config(most=0)
