"""Reading one token as several, where a processor does that faster, and remembering whether it does."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from . import test_families
from .drive import CLOSE, error, keep, random_tokens, read_chain, vanilla
from .families import MAX_LENGTH, converted

pytest.importorskip("openvino", reason="needs the extra `openvino`")
width = pytest.importorskip("foretoken.models.openvino_width")


@pytest.fixture
def fresh() -> Iterator[None]:
    """Models of this test alone, which it may change."""
    converted.cache_clear()
    yield
    converted.cache_clear()


def widened(name: str, narrowest: int = 6) -> tuple[Any, Any]:
    theirs, ours = converted(name, "none")
    ours.widen(narrowest)
    return theirs, ours


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    "test",
    [
        test_families.test_chunks_then_single_tokens,
        test_families.test_tree_commit_and_rollback,
        test_families.test_ragged_rows_that_leave_and_join,
    ],
)
def test_a_wide_model_says_the_same(test: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_families, "pair", widened)
    test("llama")


@pytest.mark.usefixtures("fresh")
def test_a_wide_model_reads_to_the_end() -> None:
    """The last token that fits is padded as well."""
    theirs, ours = widened("llama")
    tokens, cache = random_tokens(1, 1, MAX_LENGTH), ours.new_cache(1)
    found = []
    for at in range(MAX_LENGTH):
        found.append(read_chain(ours, cache, tokens[:, at : at + 1]))
        keep(cache, 1)
    assert error(torch.cat(found, 1)[0], vanilla(theirs, tokens[0])) < CLOSE


@pytest.mark.usefixtures("fresh")
def test_only_graphs_that_are_used_take_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = converted("llama", "none")[1]
    before = ours._fixed
    ours.widen(4)
    assert (sorted(ours._fixed), [ours.width(size) for size in (1, 3, 5, 17)]) == ([4, 6, 8, 16], [4, 4, 6, 32])
    assert ours._fixed[6] is before[6]
    monkeypatch.setattr("foretoken.models.openvino.COPIES", 2 * ours.weight_bytes)
    ours.widen(6)
    assert sorted(ours._fixed) == [6, 8]
    assert ours.ahead(1) == 0, "a draw would read one token at a time"
    ours.widen(1)
    assert (sorted(ours._fixed), ours.ahead(1)) == ([1, 4], 16)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Seconds that forwards are said to take; every model is large."""
    seconds = {1: 1.0, 4: 0.95, 6: 0.9}
    monkeypatch.setattr(width, "LARGE", 0)
    monkeypatch.setattr(width, "BUDGET_S", 0)
    monkeypatch.setattr(width, "forwards_s", lambda model, size, cache: seconds[size])
    return seconds


@pytest.mark.usefixtures("fresh")
def test_the_fastest_width_is_found_once(timed: dict[int, float], tmp_path: Path) -> None:
    ours = converted("llama", "none")[1]
    width.settle(ours, tmp_path)
    assert ours.narrowest == 6
    ours.widen(1)
    timed |= {4: 0.1}  # nobody asks again
    width.settle(ours, tmp_path)
    assert ours.narrowest == 6
    ((name, kept),) = json.loads((tmp_path / width.FILE).read_text()).items()
    assert (kept, [file.name for file in tmp_path.iterdir()]) == (6, [width.FILE])
    assert name.endswith(" threads, torch.float32")


@pytest.mark.usefixtures("fresh")
def test_a_little_faster_is_not_faster(timed: dict[int, float], tmp_path: Path) -> None:
    timed |= {4: 0.98, 6: 0.975}
    ours = converted("llama", "none")[1]
    width.settle(ours, tmp_path)
    assert ours.narrowest == 1
    timed |= {4: 0.5}
    width.settle(ours, tmp_path)
    assert ours.narrowest == 1, "texts would not repeat"


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("damage", ["", "[]", "null", "{", '{"%s": 5}', '{"%s": "6"}', '{"%s": [6]}'])
def test_what_is_damaged_is_found_out_again(timed: dict[int, float], tmp_path: Path, damage: str) -> None:
    ours = converted("llama", "none")[1]
    width.settle(ours, tmp_path)
    (name,) = json.loads((tmp_path / width.FILE).read_text())
    (tmp_path / width.FILE).write_text(damage.replace("%s", name))
    timed |= {4: 0.5}
    width.settle(ours, tmp_path)
    assert ours.narrowest == 4


@pytest.mark.usefixtures("fresh", "timed")
def test_what_cannot_be_kept_is_not_used(tmp_path: Path) -> None:
    ours = converted("llama", "none")[1]
    width.settle(ours, tmp_path / "gone")
    assert ours.narrowest == 1


@pytest.mark.usefixtures("fresh")
def test_small_models_are_not_asked(tmp_path: Path) -> None:
    ours = converted("llama", "none")[1]
    width.settle(ours, tmp_path)
    assert (ours.narrowest, list(tmp_path.iterdir())) == (1, [])


@pytest.mark.usefixtures("fresh")
def test_timing_leaves_torch_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(width, "BUDGET_S", 0)
    before, seen = torch.get_num_threads(), []
    monkeypatch.setattr(width, "forwards_s", lambda *_: seen.append(torch.get_num_threads()) or 1.0)
    torch.set_num_threads(3)
    try:
        assert width.fastest(converted("llama", "none")[1]) == 1
        assert (set(seen), torch.get_num_threads()) == ({1}, 3)
    finally:
        torch.set_num_threads(before)
