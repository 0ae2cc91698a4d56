"""Where a step's time goes: every moment is counted once, and nothing stays behind."""

from __future__ import annotations

from typing import Any

import pytest

import foretoken
from foretoken import engine as stations
from foretoken.bench import profile
from foretoken.bench.methods import variants
from foretoken.bench.profile import STATIONS, profiled, summary
from foretoken.bench.run import interleave
from foretoken.draft.model import ModelDrafter
from foretoken.length.fixed import Fixed
from foretoken.llm import LLM


@pytest.fixture(scope="module")
def llm() -> LLM:
    return foretoken.load(draft="builtin:pair", dtype="float32", backend="torch", length="fixed:2")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Time that only passes when a test says so."""
    now = {"s": 0.0}
    monkeypatch.setattr(profile, "perf_counter", lambda: now["s"])
    return now


def slow(owner: Any, name: str, seconds: float, clock: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    function = getattr(owner, name)

    def call(*args: Any, **options: Any) -> Any:
        clock["s"] += seconds
        return function(*args, **options)

    monkeypatch.setattr(owner, name, call)


def test_every_station_is_charged_with_its_own_time(
    llm: LLM, clock: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps of two drafted tokens; what takes a power of two shows how often it was called, and where."""
    engine = llm.engine()
    engine.start([llm.request("What is 2 + 3?", max_new_tokens=64, ignore_eos=True)])
    target, draft = llm.models
    assert draft is not None
    took = {
        (draft, "forward"): ("draft_forward", 1.0, 5),  # one reads the prompt
        (target, "forward"): ("target_forward", 2.0, 2),
        (engine.drafter, "draft"): ("draft", 4.0, 2),
        (engine.drafter, "observe"): ("draft", 8.0, 2),
        (engine.length, "grow"): ("length", 16.0, 2),  # the first token is planned, and nobody asks for a third
        (engine.length, "plan"): ("length", 2048.0, 4),
        (engine.length, "observe"): ("length", 32.0, 2),
        (stations, "verify"): ("verify", 64.0, 2),
        (stations, "judge"): ("accept", 128.0, 2),
        (stations, "commit"): ("commit", 256.0, 2),
        (stations, "stream"): ("stream", 512.0, 2),
        (engine, "_tell"): ("rest", 1024.0, 2),
    }
    expected = dict.fromkeys(STATIONS, 0.0)
    for (owner, name), (station, seconds, calls) in took.items():
        slow(owner, name, seconds, clock, monkeypatch)
        expected[station] += seconds * calls
    with profiled(engine, draft) as seconds:
        engine.step()
        engine.step()
    assert seconds == expected
    assert sum(seconds.values()) == clock["s"]


@pytest.mark.parametrize("profile", [False, True])
def test_every_step_is_split_into_drafting_deciding_and_the_rest(
    llm: LLM, clock: dict[str, float], monkeypatch: pytest.MonkeyPatch, profile: bool
) -> None:
    slow(ModelDrafter, "draft", 1.0, clock, monkeypatch)
    slow(Fixed, "rests", 4.0, clock, monkeypatch)
    slow(Fixed, "plan", 16.0, clock, monkeypatch)
    slow(Fixed, "grow", 64.0, clock, monkeypatch)
    slow(Fixed, "observe", 256.0, clock, monkeypatch)
    slow(llm.models[0], "forward", 1024.0, clock, monkeypatch)
    slow(stations, "commit", 2048.0, clock, monkeypatch)
    request = llm.request("What is 2 + 3?", max_new_tokens=6, ignore_eos=True)
    _, sample = interleave(variants(llm, ["fixed:2"]), [request], profile=profile)
    assert any(drafted for drafted, *_ in sample.steps)
    for drafted, _, _, draft_s, length_s, rest_s in sample.steps:
        assert (draft_s, rest_s) == (1, 1024 + 2048)
        # A plan for every token that is drawn, one where there is no room, and a question about all but the first.
        assert length_s - 4 - 256 == 16 * max(drafted, 1) + 64 * max(drafted - 1, 0)


def test_nothing_stays_behind(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    engine = llm.engine()
    engine.start([llm.request("Hi", max_new_tokens=4)])
    owners = (stations, engine, engine.drafter, engine.length, engine.rule, *llm.models)
    before = [dict(vars(owner)) for owner in owners]
    with profiled(engine, llm.models[1]):
        engine.step()
    with monkeypatch.context() as patch:
        patch.setattr(stations, "judge", interrupted)
        with pytest.raises(KeyboardInterrupt), profiled(engine, llm.models[1]):
            engine.step()
        assert stations.judge is interrupted
    assert [dict(vars(owner)) for owner in owners] == before


def test_shares_add_up() -> None:
    seconds = {**dict.fromkeys(STATIONS, 0.0), "target_forward": 6.0, "draft_forward": 1.0, "rest": 1.0}
    found = summary([seconds, dict.fromkeys(STATIONS, 0.0) | {"accept": 2.0}], 4)
    assert found is not None
    assert (found["step_s"], found["overhead_rate"]) == (2.5, pytest.approx(0.3))
    assert found["shares"] == {**dict.fromkeys(STATIONS, 0.0), **{k: v / 10 for k, v in seconds.items()}, "accept": 0.2}
    assert summary([], 3) is None


def test_samples_are_timed_on_request_only(llm: LLM) -> None:
    requests = [llm.request("Hi", max_new_tokens=4, ignore_eos=True)]
    for wanted in (False, True):
        samples = list(interleave(variants(llm, ["fixed:1"]), requests, profile=wanted))
        assert [sample.method for sample in samples] == ["plain", "fixed:1"]
        for sample in samples:
            assert (sample.stations is not None) == wanted
            if sample.stations:
                assert sample.stations["target_forward"] > 0
                assert (sample.stations["draft_forward"] > 0) == (sample.method != "plain")
                assert sum(sample.stations.values()) <= sample.decode_s
