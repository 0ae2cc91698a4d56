"""The comparison of methods: what is run, in which order, and how it is summed up."""

from __future__ import annotations

from pathlib import Path

import pytest

import foretoken
from foretoken.bench.methods import names, variants
from foretoken.bench.plot import check_plot, plot_speed_ups
from foretoken.bench.report import COLUMNS, summarise, to_csv
from foretoken.bench.run import Sample, interleave
from foretoken.errors import ConfigError
from foretoken.types import Counts


def sample(method: str, prompt: int, seconds: float, tokens: int = 10, ids: tuple[int, ...] = (1,)) -> Sample:
    counts = Counts(num_tokens=tokens, num_target_forwards=5, num_drafted=8, num_tested=6, num_accepted=5)
    return Sample(method, prompt, 0, 0.5, seconds, counts, [(8, 5)], list(ids))


def test_ranges_and_repeats_in_the_list_of_methods() -> None:
    assert names("plain, fixed:1..3,heuristic,fixed:2") == ["fixed:1", "fixed:2", "fixed:3", "heuristic"]
    assert names("plain") == []


@pytest.mark.parametrize("bad", ["", " , ", "fixed:3..1", "fixd", "fixed:x", "fixed:-1"])
def test_a_bad_list_is_refused_with_a_hint_before_anything_is_loaded(bad: str) -> None:
    with pytest.raises(ConfigError) as error:
        names(bad)
    assert error.value.hint


def test_nothing_to_draft_with_is_refused() -> None:
    with pytest.raises(ConfigError, match="no drafter"):
        variants(foretoken.load(draft="none", weights=False), ["fixed:1"])


def test_speed_ups_are_ratios_of_sums_and_medians_of_prompts() -> None:
    times = {"plain": [1.0, 1.0, 8.0], "fixed:1": [0.5, 1.0, 2.0]}
    samples = [sample(method, i, s) for method, seconds in times.items() for i, s in enumerate(seconds)]
    plain, fixed = summarise(samples)
    assert (plain["method"], plain["speed_up"], plain["speed_up_median"]) == ("plain", 1, 1)
    assert fixed["speed_up"] == pytest.approx(10 / 3.5)
    assert fixed["speed_up_median"] == pytest.approx(2)
    assert (fixed["decode_s"], fixed["prefill_s"], fixed["num_tokens"]) == (3.5, 1.5, 30)
    assert fixed["discard_rate"] == pytest.approx(9 / 30)


def test_texts_that_differ_are_counted() -> None:
    samples = [sample("plain", 0, 1), sample("plain", 1, 1), sample("odd", 0, 1), sample("odd", 1, 1, ids=(1, 2))]
    assert [row["num_differing"] for row in summarise(samples)] == [0, 1]


def test_methods_take_turns_and_say_the_same() -> None:
    llm = foretoken.load(dtype="float32")
    requests = [llm.request(text, max_new_tokens=6, seed=0) for text in ("What is 2 plus 3?", "Name a colour.")]
    done: list[tuple[int, int]] = []
    samples = list(
        interleave(variants(llm, ["fixed:2", "confidence"]), requests, 2, lambda *progress: done.append(progress))
    )
    order = [s.method for s in samples]
    assert order[:6] == ["plain", "fixed:2", "confidence", "fixed:2", "confidence", "plain"]
    assert sorted(set(order)) == ["confidence", "fixed:2", "plain"]
    assert done[-1] == (12, 12)
    rows = summarise(samples)
    assert all(row["num_differing"] == 0 for row in rows)
    for s in samples:
        assert sum(drafted for drafted, *_ in s.steps) == s.counts.num_drafted
        assert sum(accepted for _, accepted, *_ in s.steps) == s.counts.num_accepted
        assert len(s.steps) == s.counts.num_target_forwards


def test_a_picture_that_cannot_be_drawn_is_refused_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="cannot draw"):
        check_plot(Path("speed.doc"))
    monkeypatch.setattr("foretoken.bench.plot.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs matplotlib"):
        check_plot(Path("speed.svg"))


def test_csv_and_picture(tmp_path: Path) -> None:
    rows = summarise([sample("plain", 0, 1.0), sample("fixed:1", 0, 0.5)])
    head, *lines = to_csv(rows, "a/target 4x").splitlines()
    assert head == ",".join(COLUMNS)
    assert [line.split(",")[:2] for line in lines] == [["a/target 4x", "plain"], ["a/target 4x", "fixed:1"]]
    picture = tmp_path / "speed.svg"
    plot_speed_ups(rows, "a caption", picture)
    first = picture.read_text()
    assert "<svg" in first
