"""Traces have the engine's law, and a replay makes the engine's steps."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch

import foretoken
from foretoken.bench.replay import replay, seconds
from foretoken.bench.run import Sample
from foretoken.bench.simulate import RunCosts, costs_of, simulate, summary
from foretoken.bench.trace import record
from foretoken.costs import GivenCosts
from foretoken.errors import RequestError
from foretoken.length.confidence import Confidence
from foretoken.length.fixed import Fixed
from foretoken.length.heuristic import Heuristic
from foretoken.length.renewal import Renewal
from foretoken.request import Request, Sampling
from foretoken.types import Counts
from tests.contract.table import TableModel, near, random_table

PROMPTS = ["What is 12 plus 30?", "Write a function that adds two numbers."]


@pytest.fixture(scope="module")
def llm() -> foretoken.LLM:
    return foretoken.load(draft="builtin:pair", dtype="float32", length="fixed:3")


@pytest.mark.parametrize(
    "policy",
    [Fixed(Fixed.Config(3)), Confidence(), Heuristic(), Renewal(Renewal.Config(cost=0.1))],
    ids=lambda p: type(p).__name__,
)
def test_at_temperature_0_a_replay_makes_the_steps_of_the_engine(llm: foretoken.LLM, policy: object) -> None:
    for prompt in PROMPTS:
        request = llm.request(prompt, max_new_tokens=40, seed=0)
        engine = llm.engine()
        engine.length = policy  # type: ignore[assignment]
        (row,) = engine.start([request])
        steps = []
        while engine.batch.rows:
            before = row.counts.num_drafted, row.counts.num_accepted, row.counts.num_draft_forwards
            engine.step()
            after = row.counts.num_drafted, row.counts.num_accepted, row.counts.num_draft_forwards
            steps.append(tuple(now - then for now, then in zip(after, before, strict=True)))
        target, draft = llm.models
        assert draft is not None
        trace = record(target, draft, request, row.output)
        assert replay(trace, policy, GivenCosts(0.1)) == steps  # type: ignore[arg-type]


def test_a_seed_hides_no_costs_from_what_is_replayed(llm: foretoken.LLM) -> None:
    """A request that has to repeat is told typical costs by the engine; here all are given."""
    request = llm.request(PROMPTS[0], Sampling(temperature=1.0), max_new_tokens=60, seed=0)
    assert request.repeats
    target, draft = llm.models
    assert draft is not None
    trace = record(target, draft, request, _text(llm, request))
    other = replace(trace, request=replace(request, repeats=False))
    for cost in (0.01, 0.6):
        costs = RunCosts(dict.fromkeys(("plain", "oracle", "renewal"), GivenCosts(cost)))
        (*_, told), (*_, untold) = (simulate([one], {"renewal": Renewal}, costs) for one in (trace, other))
        assert told == untold


def test_drafted_tokens_have_the_law_of_the_draft_and_are_accepted_as_often_as_they_should() -> None:
    """One token after one context, 4,000 times: power above 0.99 against a shift of 0.05 in any share."""
    law = random_table(1, 4)
    target, draft = TableModel(law), TableModel(near(law, 2, 1.0))
    p, q = (torch.tensor(model.table([0, 1])).softmax(0) for model in (target, draft))
    overlap = torch.minimum(p, q).sum().item()
    assert 0.3 < overlap < 0.95
    runs = 4000
    drafted, accepted = torch.zeros(4), 0
    dice = torch.Generator().manual_seed(0)
    for seed in range(runs):
        text = torch.multinomial(p, 1, generator=dice).tolist()
        request = Request((0, 1), Sampling(temperature=1.0), max_new_tokens=1, seed=seed)
        trace = record(target, draft, request, text)
        drafted[trace.on.tokens[0]] += 1
        accepted += trace.accepted[0]
        assert not trace.accepted[0] or trace.on.tokens[0] == text[0]
    slack = 4 * math.sqrt(0.25 / runs)
    assert accepted / runs == pytest.approx(overlap, abs=slack)
    torch.testing.assert_close(drafted / runs, q.float(), atol=slack, rtol=0)


def test_after_a_rejection_the_draft_follows_its_own_words() -> None:
    law = random_table(3, 4, spread=3.0)
    target, draft = TableModel(law), TableModel(random_table(4, 4, spread=3.0))
    request = Request((0, 1), max_new_tokens=12)
    text: list[int] = []
    while len(text) < 12:
        text.append(int(torch.tensor(target.table([0, 1, *text])).argmax()))
    trace = record(target, draft, request, text)
    assert not all(trace.accepted)
    assert any(trace.accepted)
    for position, leaves in trace.off.items():
        words = [*request.prompt, *text[:position], int(trace.on.tokens[position])]
        for token, prob in zip(leaves.tokens.tolist(), leaves.prob.tolist(), strict=True):
            expected = torch.tensor(draft.table(words)).softmax(0)
            assert token == int(expected.argmax())
            assert prob == pytest.approx(expected[token].item(), abs=1e-6)
            words.append(token)


def test_what_depends_on_the_text_before_is_refused(llm: foretoken.LLM) -> None:
    request = llm.request("Hi", Sampling(repetition_penalty=1.2))
    target, draft = llm.models
    assert draft is not None
    with pytest.raises(RequestError, match="not simulated"):
        record(target, draft, request, [1, 2])


def test_a_simulation_counts_every_token_once_and_the_oracle_bounds_all(llm: foretoken.LLM) -> None:
    target, draft = llm.models
    assert draft is not None
    request = llm.request(PROMPTS[0], max_new_tokens=30, seed=0)
    trace = record(target, draft, request, _text(llm, request))
    costs = GivenCosts(0.1)
    policies = {f"fixed:{k}": (lambda k=k: Fixed(Fixed.Config(k))) for k in range(1, 5)}
    results = simulate([trace], policies, RunCosts(dict.fromkeys(["plain", *policies, "oracle"], costs)))
    rows = {row["method"]: row for row in summary(results, {"plain": 0.5})}
    for one in results:
        # Every step emits what it accepted and one more token, but for a last one cut short.
        emitted = sum(accepted + 1 for _, accepted, _ in one.steps[0])
        assert one.num_tokens in (emitted, emitted - 1)
        assert one.seconds == pytest.approx(seconds(one.steps[0], costs))
    assert rows["plain"]["speed_up"] == 1
    assert rows["plain"]["simulated_over_measured"] == pytest.approx(0.5)  # a second per token simulated, two measured
    assert rows["oracle"]["simulated_over_measured"] is None
    assert rows["oracle"]["discard_rate"] == 0
    assert max(rows.values(), key=lambda row: row["speed_up"])["method"] == "oracle"
    assert rows["oracle"]["share_of_oracle"] == pytest.approx(1)
    best = max(rows[name]["speed_up"] for name in (*policies, "plain"))
    assert rows["fixed:2"]["over_best_fixed"] == pytest.approx(rows["fixed:2"]["speed_up"] / best)


def _text(llm: foretoken.LLM, request: Request) -> list[int]:
    run = llm.using(draft="none").run([request])
    for _ in run:
        pass
    return run.completions()[0].token_ids


Step = tuple[int, int, int, float, float, float]


def _sample(method: str, steps: list[Step]) -> Sample:
    return Sample(method, 0, 0, 0.0, 1.0, Counts(), steps, [])


def test_costs_of_a_run_are_read_off_its_steps() -> None:
    """k draft forwards take 0.1 + 0.2 k seconds, verifying n tokens 1 + 0.1 n, and one of two policies 0.05 + 0.02 k.

    The first draft of an answer takes 3 more, and one candidate is drafted by two forwards.
    """
    forwards = {0: 0, 1: 2, 2: 2, 4: 4}

    def steps(thinks: bool) -> list[Step]:
        return [
            (
                *(k, 0, f),
                0.1 + 0.2 * f + 3.0 * (index == 1) if k else 0.0,
                thinks * (0.05 + 0.02 * k if k else 0.01),
                1.1 + 0.1 * k,
            )
            for index, (k, f) in enumerate(list(forwards.items()) * 5)
        ]

    costs = costs_of([_sample("quick", steps(False)), _sample("slow", steps(True))], lambda tokens: 1)
    assert costs.start_s == pytest.approx(3.0)
    for method, thinks in (("quick", 0), ("oracle", 0), ("slow", 1)):
        of = costs.of[method]
        assert of.draft_s(1) == pytest.approx(0.2)
        assert of.verify_s(1) == pytest.approx(1.1 + 0.01 * thinks)
        assert of.verify_s(3) == pytest.approx(0.1 + 1.3 + 0.09 * thinks)
    assert seconds([(1, 0, 2), (0, 0, 0)], costs.of["slow"], costs.start_s) == pytest.approx(
        3 + 0.5 + 1.2 + 0.07 + 1.11
    )
    assert seconds([(0, 0, 0)], costs.of["quick"], costs.start_s) == pytest.approx(1.1)


def test_however_times_scatter_the_steps_of_a_run_cost_what_they_took() -> None:
    """Medians would leave out what is slow now and then, such as the first steps of an answer."""
    chance = random.Random(0)
    lengths = [("plain", [0] * 9), ("fixed:2", [2] * 5), ("adaptive", [1, 3, 0, 2, 5, 1])]
    samples = [
        _sample(m, [(k, 0, k + k % 2, k * chance.random(), k * chance.random(), chance.expovariate(1.0)) for k in ks])
        for m, ks in lengths
    ]
    costs = costs_of(samples, lambda tokens: tokens)
    simulated = sum(
        seconds([(k, 0, forwards) for k, _, forwards, *_ in one.steps], costs.of[one.method], costs.start_s)
        for one in samples
    )
    assert simulated == pytest.approx(sum(sum(step[3:]) for one in samples for step in one.steps))


def test_what_another_width_costs_is_read_off_the_steps_that_follow_one() -> None:
    """Verifying n tokens takes 1 + 0.1 n seconds, and 0.5 more where the step before had another width: 1, 4, 8."""

    def width(tokens: int) -> int:
        return 1 if tokens == 1 else 4 if tokens <= 4 else 8

    def sample(name: str, lengths: list[int]) -> Sample:
        changes = [b > 0 and width(lengths[b - 1] + 1) != width(k + 1) for b, k in enumerate(lengths)]
        return _sample(
            name, [(k, 0, k, 0.2 * k, 0.0, 1.1 + 0.1 * k + 0.5 * c) for k, c in zip(lengths, changes, strict=True)]
        )

    adaptive = [0, 1, 3, 2, 0, 5, 3, 7]
    samples = [sample(f"fixed:{k}", [k] * 4) for k in range(4)] + [sample("adaptive", adaptive)]
    costs = costs_of(samples, width).of["adaptive"]
    assert [costs.verify_s(n) for n in (1, 2, 4, 6, 8)] == pytest.approx([1.1, 1.2, 1.4, 1.6, 1.8])
    taken = sum(sum(step[3:]) for step in samples[-1].steps)
    assert seconds([(k, 0, k) for k in adaptive], costs) == pytest.approx(taken)
