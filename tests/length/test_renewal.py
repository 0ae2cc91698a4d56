"""Renewal weighs expected gain against cost, gives drafting up when it does not pay, and comes back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from foretoken.bench.replay import replay, seconds
from foretoken.bench.trace import DEPTH, Leaves, Trace
from foretoken.costs import GivenCosts, MeasuredCosts
from foretoken.curves import CALM, RECENT
from foretoken.errors import ConfigError
from foretoken.length.base import LengthPolicy, Plan
from foretoken.length.belief import Belief, log_odds
from foretoken.length.fixed import Fixed
from foretoken.length.hearing import FEW, Hearing
from foretoken.length.pace import Pace
from foretoken.length.record import FADE, Record
from foretoken.length.renewal import APART, Renewal
from foretoken.prices import Prices, typical
from foretoken.request import Request
from foretoken.types import Frontier
from tests.length.by_hand import batch, finished, frontier


def trace(accepted: list[bool], sure: float = 0.7, unsure: float = 0.7) -> Trace:
    """A text whose drafting is accepted as told, with the draft's own probability of what is kept and what is not."""
    n = len(accepted)
    prob = torch.where(torch.tensor(accepted), sure, unsure)
    leaves = Leaves(torch.zeros(n, dtype=torch.int64), prob, torch.zeros(n, 2), None)
    after = Leaves(torch.zeros(DEPTH, dtype=torch.int64), torch.full((DEPTH,), unsure), torch.zeros(DEPTH, 2), None)
    off = {i: after for i, kept in enumerate(accepted) if not kept}
    return Trace(Request((0,), max_new_tokens=n, repeats=False), [1] * n, accepted, leaves, off)


def pace(policy: LengthPolicy, text: Trace, cost: float) -> float:
    """Time per token, in plain steps."""
    costs = GivenCosts(cost)
    return seconds(replay(text, policy, costs), costs) / len(text.text)


@pytest.mark.parametrize("alpha", [0.6, 0.7, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("cost", [0.05, 0.1, 0.2])
def test_constant_acceptance_gives_the_pace_of_the_best_fixed_length(alpha: float, cost: float) -> None:
    """Fixture F5, learnt rather than told: within 4% of the best of 20 fixed lengths in hindsight."""
    text = trace((np.random.default_rng(0).random(1500) < alpha).tolist())
    best = min(pace(Fixed(Fixed.Config(k)), text, cost) for k in range(21))
    assert pace(Renewal(), text, cost) < 1.04 * best


def test_what_tells_acceptance_apart_beats_every_fixed_length() -> None:
    text = trace((np.random.default_rng(1).random(800) < 0.7).tolist(), sure=0.9, unsure=0.3)
    best = min(pace(Fixed(Fixed.Config(k)), text, 0.2) for k in range(21))
    assert pace(Renewal(), text, 0.2) < 0.9 * best


@pytest.mark.parametrize("cost", [0.05, 0.35, 1.0])
def test_a_hopeless_draft_costs_almost_nothing(cost: float) -> None:
    assert pace(Renewal(), trace([False] * 512), cost) < 1.03


def test_drafting_comes_back_when_it_pays_again() -> None:
    text = trace([False] * 300 + [True] * 300)
    steps = replay(text, Renewal(), GivenCosts(0.3))
    back = next(i for i, (_, accepted, _) in enumerate(steps) if accepted)
    assert back < 300 + 50  # a step is a token as long as nothing is drafted
    assert all(drafted for drafted, *_ in steps[back:-1])
    assert max(drafted for drafted, *_ in steps) > 5


def test_the_next_request_need_not_find_out_again() -> None:
    policy, costs = Renewal(), GivenCosts(0.5)
    hopeless, promising = trace([False] * 128), trace([True] * 128)
    first, second = (sum(drafted for drafted, *_ in replay(hopeless, policy, costs)) for _ in range(2))
    assert second < first
    assert sum(accepted for _, accepted, _ in replay(promising, policy, costs)) > 30
    # What must repeat, or is told its costs, starts afresh.
    again = replace(hopeless, request=replace(hopeless.request, repeats=True))
    assert replay(again, policy, costs) == replay(again, Renewal(), costs)
    told = Renewal(Renewal.Config(cost=0.5))
    assert replay(hopeless, told, costs) == replay(hopeless, told, costs)


def test_the_rest_after_a_try_reckons_with_what_it_really_took() -> None:
    """A draft that has to read what was said meanwhile takes longer than a draft forward. A hiccup is no lesson."""

    def rest(*seconds: float) -> int:
        overall, costs = Record(), MeasuredCosts({1: 0.5}, {1: 1.0, 2: 1.0})
        overall.steps = 2 * overall.tokens
        one = Pace(0.0, overall)
        for took in seconds:
            one.rest = 1
            assert one.begin()
            one.begin()
            costs.last_s = took
            assert one.goes_on(0, 1.0, Prices(costs))
            one.observe([0.5], 0, Prices(costs))
        return one.rest

    assert rest(1.5, 1.5, 1.5) == 50  # half a plain step lost, of which a hundredth may be
    assert rest(4.0, 4.0, 4.0) == 300
    assert rest(1.5, 1.5, 90.0) == 50
    # Whether a first one is a hiccup cannot be known; it is after a few, and the longest rest is as long as it must be.
    assert [rest(*[90.0] * tries) for tries in (1, 2, 3)] == [128, 512, 2048]
    assert rest(*[90.0] * 12) == 8900


@pytest.mark.parametrize("rest", [1, 40])
def test_what_was_before_a_rest_says_less_after_it(rest: int) -> None:
    one = Pace(0.0, Record())
    before = one._own.tokens, one._own.steps, one._accepted, one._judged
    one.rest = rest
    assert [one.begin() for _ in range(rest + 2)] == [True] * rest + [False] * 2
    after = one._own.tokens, one._own.steps, one._accepted, one._judged
    assert after == pytest.approx([value * FADE**rest for value in before])


def test_what_trying_costs_is_time_that_drafting_took() -> None:
    """A request that tries again and again, and never for long, must not count as one that drafting pays for."""
    costs, record = MeasuredCosts({1: 0.5}, {1: 1.0, 2: 1.0}), Record()
    found = []
    for took in (90.0, 4.0, 4.0, 4.0):
        costs.last_s = took
        record.tried(1.0, Prices(costs))
        found.append(record.steps)
    assert found == pytest.approx([9.6, 9.6, 12.6, 15.6])  # a hiccup is none of it
    assert not record.pays


def test_steps_that_clearly_pay_are_counted_together_and_once() -> None:
    """After the ninth every ninth step counts what was left; one that is a near thing counts at once."""
    costs, pace = MeasuredCosts({1: 0.1}, {1: 1.0, 2: 1.0}), Pace(0.0, Record())
    costs.last_s, found = 1.2, list[float]()
    for _ in range(27):
        pace.begin()
        assert pace.goes_on(0, 1.0, Prices(costs))
        pace.observe([0.9, 0.9], 2, Prices(costs))
        found.append(pace._own.tokens)
    assert len(set(found[8:17])) == 1
    assert found[8] < found[17] < found[26]
    record, one_by_one = Record(), list[float]()
    record.steps = 0.8 * record.tokens
    for _ in range(27):
        record.add(1.2, 3)
        one_by_one.append(record.tokens)
    assert [found[at] for at in (0, 7, 8, 17, 26)] == pytest.approx([one_by_one[at] for at in (0, 7, 8, 17, 26)])
    pace._own.steps = pace._own.tokens
    pace.observe([0.9, 0.9], 2, Prices(costs))
    assert pace._own.tokens != found[-1]


def test_steps_are_counted_before_those_that_are_not_may_have_lost_what_was_gained() -> None:
    costs, pace = MeasuredCosts({1: 0.1}, {1: 1.0, 2: 1.0}), Pace(0.0, Record())
    pace.begin()
    pace.tries, pace._lessons = False, RECENT
    costs.last_s = 2.0
    pace.drafted(1.6, 2, 1, costs.last_s, Prices(costs))  # loses as much as one step does
    pace._own.steps, before = pace._own.tokens - 2.5, pace._own.tokens
    counted = []
    for _ in range(3):
        pace.observe([0.9, 0.9], 0, Prices(costs))
        counted.append(pace._own.tokens != before)
    assert counted == [False, False, True]
    assert pace._worst == 1.0
    pace.drafted(1.6, 2, 1, 3.0, Prices(costs))
    assert pace._worst == 2.0
    pace._own.steps, before = pace._own.tokens - 2.5, pace._own.tokens
    pace.observe([0.9, 0.9], 0, Prices(costs))
    assert pace._own.tokens == before
    pace.observe([0.9, 0.9], 0, Prices(costs))
    assert pace._own.tokens != before


def test_a_head_is_asked_unless_that_has_taken_longer_than_the_answer_can_save(monkeypatch: pytest.MonkeyPatch) -> None:
    class Head:
        """Takes a second for each answer."""

        asked = 0

        def heard(self, frontier: Frontier, rows: slice) -> torch.Tensor:
            self.asked += 1
            return torch.zeros(1, 2)

        def judge(self, read: torch.Tensor, probs: list[float], temperatures: list[float]) -> list[float]:
            return probs

    head, rows = Head(), batch(1)
    monkeypatch.setattr("foretoken.length.hearing.perf_counter", map(float, range(99)).__next__)
    hearing = Hearing(head)  # type: ignore[arg-type]
    leaves = frontier([2])

    def ask(stake_s: float | None) -> float | None:
        return hearing.ask(leaves, 0, rows.rows[0], stake_s, 0.25)

    assert [ask(0.5) for _ in range(FEW)] == [0.25] * FEW  # nobody knows yet what it takes
    assert (ask(0.5), ask(1.5), ask(None), head.asked) == (None, 0.25, 0.25, FEW + 2)


def test_a_step_in_which_something_else_was_done_is_no_loss() -> None:
    """What a graph's capture takes, for one; a step of twice its time is believed."""
    for slow, rests in ((2.0, True), (20.0, False)):
        costs, pace = GivenCosts(0.2), Pace(0.0, Record())
        for took in (1.2, *[slow] * 4):
            assert not pace.begin()
            assert pace.goes_on(0, 1.0, Prices(costs))
            costs.last_s = took
            pace.observe([0.9], 1 if took == 1.2 else 0, Prices(costs))
        assert (pace.rest > 0) is rests, slow


def test_rests_begin_short_again_once_drafting_paid() -> None:
    record = Record()
    record.steps = 2 * record.tokens
    assert [record.pause(100.0), record.pause(100.0)] == [128, 512]
    record.add(1.0, 30.0)
    assert record.pays
    assert [record.pause(lost) for lost in (0.5, 1.0, 100.0)] == [10, 20, 32]  # a hard passage, or a hiccup
    record.steps = 2 * record.tokens
    assert record.pause(100.0) == 128


def test_looking_up_is_tried_again_sooner_than_a_draft_model() -> None:
    policy, row = Renewal(), batch(1).rows[0]
    for known, rests in ((True, [16, 32, 64]), (False, [128, 512, 2048])):
        record = policy._pace(row, known)._overall
        record.steps = 2 * record.tokens
        assert [record.pause(100.0) for _ in rests] == rests


def test_a_batch_of_resting_rows_is_not_drafted_for() -> None:
    policy, rows = Renewal(), batch(2)
    rows.costs = GivenCosts(0.9)
    for _ in range(4):
        policy.observe(rows, *finished([3, 3], [0, 0], torch.full((2, 4), 0.5)))
    before = [policy._pace(row).rest for row in rows.rows]
    assert min(before) > 0
    assert policy.rests(rows)
    assert [policy._pace(row).rest for row in rows.rows] == [rest - 1 for rest in before]
    policy._pace(rows.rows[0]).rest = 0
    rest = policy._pace(rows.rows[1]).rest
    assert not policy.rests(rows)
    assert policy._pace(rows.rows[1]).rest == rest - 1  # however many others draft
    assert [policy.resting(row) for row in rows.rows] == [False, True]
    assert policy.grow(frontier([0, 0]), rows) == [[True], [False]]


@pytest.mark.parametrize("switch", [0.0, 0.3])
def test_what_is_drawn_in_one_go_ends_where_asking_would_have_ended_it(switch: float) -> None:
    widths = {width: 4 if width < 5 else 6 if width < 7 else 8 * -(-width // 8) for width in range(2, 40)}
    costs = GivenCosts(0.05, {1: 1.0, 4: 1.05, 6: 1.2, 8: 1.4, 16: 2.0}, switch, {1: 1, **widths}.__getitem__)
    dice, ends = np.random.default_rng(3), set()
    for _ in range(60):
        probs, price = dice.beta(2, 1, 20).tolist(), Prices(costs)
        one, other = Pace(0.5, Record()), Pace(0.5, Record())
        one.start(price)
        plan = one.run(0, 20, price, ())
        assert plan.enough is not None
        assert plan.enough.after == list(range(1, plan.draw + 1)), "all of these take long"
        last = next((n for n in plan.enough.after if plan.enough.rule(probs[:n])), None)
        assert other.goes_on(0, 1.0, price)
        asked = next(n for n in range(1, 21) if not other.goes_on(n, probs[n - 1], price))
        assert last == (asked if asked <= plan.draw else None)
        ends.add(last)
    assert len(ends) > 3


def test_where_little_time_is_at_stake_nobody_is_asked() -> None:
    """Drafting a token takes 0.19 ms, and reading it nothing more where as many are read anyway."""
    price = Prices(GivenCosts(1.9e-4, {1: 1e-2, 4: 1e-2, 5: 1.1e-2, 6: 1.1e-2, 7: 1.1e-2, 8: 1.1e-2, 9: 1.3e-2}))
    one = Pace(0.0, Record())
    one.start(price)
    plan = one.run(0, 20, price, ())
    assert plan.enough is not None
    assert plan.enough.after == [3, 7, 8], "before the fifth token is read, the ninth and the tenth"
    one.outlook.renew(dear := Prices(GivenCosts(7e-4, {1: 1e-2})))
    assert one.outlook.asks(0, 4, dear) == [1, 2, 3, 4]


def test_a_device_that_can_be_asked_between_two_draws_is_told_when() -> None:
    rows, policy = batch(1), Renewal()
    rows.costs = GivenCosts(0.1)
    assert (plan := policy.plan(rows, 0)).enough
    assert (plan.draw, plan.sure, plan.most) == (8, 8, 20)
    assert policy.plan(rows, 0) is plan, "it is the same while costs are"
    rows.costs.changes += 1
    assert policy.plan(rows, 0) is not plan
    assert policy.plan(rows, 0, 3).enough is None, "a device far away is not"
    assert Renewal(Renewal.Config(most=0)).plan(rows, 0).draw == 0
    policy._pace(rows.rows[0]).resting = True
    assert policy.plan(rows, 0).enough is None
    several = batch(2)
    several.costs = rows.costs
    assert policy.plan(several, 0).enough is None
    rows, hearing = batch(1), Renewal()
    rows.costs = GivenCosts(0.1)
    hearing._hearing = Hearing(None)  # type: ignore[arg-type]  # it need not say anything
    assert hearing.plan(rows, 0).enough is None, "a head is asked token by token"
    rows.rows[0].request = replace(rows.rows[0].request, repeats=True)
    assert policy.plan(rows, 0).enough is None, "its neighbours would decide"


class Told(Belief):
    """A belief that is what it was told of each probability."""

    def __init__(self, said: dict[float, float]) -> None:
        super().__init__(0.0, 1.0)
        self.given = said.__getitem__  # type: ignore[method-assign]


def test_the_decision_is_expected_gain_against_cost() -> None:
    """A third candidate after two: survival 0.8 * 0.7, next one 3/5, pace 0.8 of a plain step: gain 0.269."""
    for cost, goes_on in ((0.268, True), (0.270, False)):
        one = Pace(0.0, Record())
        one.belief = Told({0.5: 0.8, 0.4: 0.7})
        assert one.goes_on(0, 1.0, Prices(GivenCosts(cost)))
        one.goes_on(1, 0.5, Prices(GivenCosts(cost)))
        assert one.goes_on(2, 0.4, Prices(GivenCosts(cost))) is goes_on


def test_fewer_are_drawn_together_after_a_candidate_that_may_be_wrong() -> None:
    """The next ones bring 0.48, 0.288, 0.173, 0.104 and 0.062 each, if all before them are accepted, and cost 0.1."""
    price = Prices(GivenCosts(0.1))
    for survival, count in ((1.0, 4), (0.5, 2), (0.2, 1)):
        one = Pace(0.0, Record())
        one.belief = Told({0.5: survival})
        assert one.goes_on(0, 1.0, price)
        assert one.likely(0, price) == 4
        one.goes_on(1, 0.5, price)
        assert one.likely(1, price) == count


def test_decisions_follow_costs_that_change() -> None:
    costs, one = MeasuredCosts({1: 0.2, 2: 0.4}, {1: 1.0}), Pace(0.0, Record())

    def second() -> bool:
        assert one.goes_on(0, 1.0, Prices(costs))
        return one.goes_on(1, 0.5, Prices(costs))

    assert second()
    for forwards in (1, 2) * 10:  # drafting takes four times as long
        costs.observe(1, forwards, 0.8 * forwards, forwards + 1, 1.0)
    assert not second()


def test_verification_that_grows_counts_as_cost() -> None:
    """Drafting is free; a third token costs verification more, or not so much more."""
    for last, goes_on in ((1.6, False), (1.4, True)):
        one, price = Pace(0.0, Record()), Prices(GivenCosts(0.0, {1: 1.0, 2: 1.0, 3: last}))
        assert one.goes_on(0, 1.0, price)
        assert one.goes_on(1, 0.9, price) is goes_on


def test_a_forward_for_one_row_of_four_costs_that_row_four_times_as_much() -> None:
    rows = batch(4)
    rows.costs = GivenCosts(0.2)
    all_active = frontier([0] * 4)
    assert Renewal().grow(all_active, rows) == [[True]] * 4
    policy = Renewal()
    policy.grow(frontier([0] * 4), rows)
    assert policy.grow(frontier([1] * 4, [0.9] * 4), rows) == [[True]] * 4
    policy.grow(frontier([0] * 4), rows)
    alone = replace(frontier([1] * 4, [0.9] * 4), active=[[True], [False], [False], [False]])
    assert policy.grow(alone, rows) == [[False]] * 4


def test_rows_learn_apart() -> None:
    policy, rows = Renewal(), batch(2)
    rows.costs = GivenCosts(0.9)
    policy.observe(rows, *finished([3, 3], [3, 0], torch.full((2, 4), 0.5)))
    for _ in range(4):
        policy.observe(rows, *finished([3, 3], [3, 0], torch.full((2, 4), 0.5)))
    assert not policy.rests(rows)  # not all of them
    assert policy.grow(frontier([0, 0]), rows) == [[True], [False]]


def test_given_costs_do_not_ask_the_clock() -> None:
    assert Renewal().uses_clock
    fixed = Renewal(Renewal.Config(cost=0.1))
    assert not fixed.uses_clock
    rows = batch(1)
    rows.costs = GivenCosts(99.0)  # not looked at
    fixed.grow(frontier([0]), rows)
    assert fixed.grow(frontier([1], [0.9]), rows) == [[True]]


def test_options_are_checked() -> None:
    for bad in ({"cost": -0.1}, {"most": -1}):
        with pytest.raises(ConfigError):
            Renewal.Config(**bad)


def test_a_belief_finds_the_curve_behind_the_outcomes() -> None:
    dice = np.random.default_rng(0)
    belief = Belief(1.0, 1.0)
    for _ in range(3000):
        score = float(dice.normal(0, 2))
        belief.observe(score, bool(dice.random() < 1 / (1 + np.exp(0.8 - 0.5 * score))))
    # About 100 outcomes are remembered: a standard error of some 0.25 in the shift and 0.15 in the scale.
    assert belief.shift == pytest.approx(-0.8, abs=0.5)
    assert belief.scale == pytest.approx(0.5, abs=0.35)


def test_a_belief_starts_as_told_and_stays_finite() -> None:
    belief = Belief(0.0, 1.0)
    assert belief(log_odds(0.3)) == pytest.approx(0.3)
    for _ in range(500):
        belief.observe(log_odds(1.0), False)
    assert 0 <= belief(log_odds(1.0)) < 0.05
    assert np.isfinite([belief.shift, belief.scale]).all()


def test_candidates_that_are_drawn_and_read_for_nothing_are_not_asked_about() -> None:
    policy, rows = Renewal(), batch(2)
    rows.costs = GivenCosts(0.1)
    assert policy.plan(rows, 0, 3) == Plan(4, 4, 20)
    assert policy.plan(rows, 3, 5) == Plan(5, 8, 20)
    rows.costs = GivenCosts(0.1, {1: 1.0, 6: 1.0, 7: 2.0})  # with two rows, the third candidate costs
    assert policy.grow(frontier([0, 0]), rows) == [[True], [True]]
    assert policy.plan(rows, 0, 4) == Plan(4, 2, 2)  # and does not pay, whatever the first two are
    assert Renewal(Renewal.Config(most=2)).plan(rows, 0) == Plan(2, 2, 2)
    assert Renewal(Renewal.Config(most=0)).plan(rows, 0, 3) == Plan(0, 0, 0)
    rows.rows[0].request = replace(rows.rows[0].request, repeats=True)
    assert policy.plan(rows, 0, 2).sure == 0  # its neighbours would decide
    assert policy.plan(rows, 0, 2).most == 20


def test_steps_are_learnt_from_once_each_and_a_few_at_a_time() -> None:
    one, price, dice = Pace(0.0, Record()), Prices(GivenCosts(0.1)), np.random.default_rng(1)
    belief, updates = Belief(1.0, 1.0), 0
    for lesson in range(1, 28):
        probs = dice.uniform(0.1, 0.9, 3).tolist()
        accepted, before = int(dice.integers(0, 4)), one.belief.shift
        one.observe(probs, accepted, price)
        updates += one.belief.shift != before
        for index, prob in enumerate(probs[: accepted + 1]):
            belief.observe(log_odds(prob), index < accepted)
        if lesson < 9 or lesson % 9 == 0:
            assert (one.belief.shift, one.belief.scale) == (belief.shift, belief.scale)
    assert updates == 11


def test_candidates_that_it_was_not_asked_about_count_all_the_same() -> None:
    def fresh() -> Pace:
        one = Pace(0.0, Record())
        assert one.goes_on(0, 1.0, price)
        return one

    price = Prices(GivenCosts(0.2))
    step_by_step, at_once = fresh(), fresh()
    for depth, prob in enumerate((0.7, 0.8), 1):
        step_by_step.goes_on(depth, prob, price)
    assert step_by_step.goes_on(3, 0.6, price) == at_once.goes_on(3, 0.6, price, sure=[0.7, 0.8])
    assert step_by_step._survival == at_once._survival
    assert step_by_step._before == at_once._before


class Clocked(GivenCosts):
    """Costs of which the price of a plain step is known from long ago."""

    def __init__(self) -> None:
        super().__init__(0.1)
        self.age, self.plain, self.last_s = 33, 1.0, 1.0

    def plain_s(self, rows: int) -> float:
        return self.plain


def test_plain_decoding_is_timed_now_and_then_where_it_may_be_as_fast() -> None:
    policy, rows = Renewal(), batch(1)
    rows.costs = costs = Clocked()

    def apart(age: int) -> int:
        costs.age = policy._since = age
        steps = 0
        while policy.rests(rows):
            assert policy.declines(rows)
            steps += 1
        assert not policy.declines(rows)
        return steps

    assert apart(33) == 0  # nothing was drafted yet
    policy._pace(rows.rows[0])  # at first it is a near thing
    assert apart(33) == CALM + 1  # as expected
    assert policy._patience == 128
    assert apart(120) == 0
    costs.last_s = 1.3
    assert apart(130) == APART
    assert policy._patience == 512  # it is what it was after all
    costs.last_s = 1.0
    pace = policy._pace(rows.rows[0])
    pace._own.steps = 0.6 * pace._own.tokens  # no near thing any more
    policy._pace(rows.rows[0], known=True)  # whatever looking up brings
    assert apart(900) == 0
    assert apart(1025) > 0
    rows.rows[0].request = replace(rows.rows[0].request, repeats=True)
    assert apart(2000) == 0


def test_what_has_changed_is_looked_at_often() -> None:
    policy, rows = Renewal(), batch(1)
    rows.costs = costs = Clocked()
    policy._pace(rows.rows[0])
    policy._since, policy._patience, costs.age = 600, 512, 600
    assert policy.rests(rows)
    costs.plain = costs.last_s = 1.3
    assert [policy.rests(rows) for _ in range(APART)] == [True] * (APART - 1) + [False]
    assert policy._patience == 32


@pytest.mark.parametrize(
    ("rests", "asks"), [([(3, 9)], 48), ([(20, 40)], 32), ([(40, None)], 13), ([(4, 6), (9, 9)], 47)]
)
def test_a_rest_is_as_long_unasked(rests: list[tuple[int, int | None]], asks: int) -> None:
    """By row, steps to rest from drafting, and from look-ups where there are any. Sixteen pass unasked at most."""

    def steps(unasked: bool) -> tuple[list[bool], list[float], int]:
        policy, rows = Renewal(), batch(len(rests))
        paces, asked = [], 0
        for row, (drafts, known) in zip(rows.rows, rests, strict=True):
            for kind, rest in enumerate((drafts, known)):
                if rest is not None:
                    paces.append(policy._pace(row, bool(kind)))
                    paces[-1].rest = rest
        nothing, idle = list[bool](), 0
        for _ in range(50):
            if idle:
                idle -= 1
                nothing.append(True)
                continue
            asked += 1
            wanted = [not policy.rests(rows), len(paces) > len(rests) and not policy.declines(rows)]
            nothing.append(not any(wanted))
            idle = policy.idle(rows) if nothing[-1] and unasked else 0
        return nothing, [pace._own.steps for pace in paces], asked

    slow, fast = steps(unasked=False), steps(unasked=True)
    assert slow[:2] == fast[:2]
    assert (slow[2], fast[2]) == (50, asks)


def test_nobody_is_left_unasked_who_may_want_something() -> None:
    policy, rows = Renewal(), batch(2)
    first, second = (policy._pace(row) for row in rows.rows)
    first.rest, second.rest = 9, 0
    assert not policy.rests(rows)
    assert policy.idle(rows) == 0
    second.rest = 5
    assert policy.rests(rows)
    assert policy.idle(rows) == 4
    assert (first.rest, second.rest) == (3, 0)
    known = policy._pace(rows.rows[0], known=True)
    first.rest = second.rest = 9
    assert policy.rests(rows)
    assert not policy.declines(rows)  # a look-up is wanted
    assert policy.idle(rows) == 0
    assert (known.resting, first.rest) == (False, 8)
    policy._apart = 3  # plain decoding is timed, which is asked about step by step
    assert policy.idle(rows) == 0


@pytest.mark.parametrize(("target", "tries"), [(1.1e7, False), (1.7e8, True)])
def test_nothing_is_drafted_where_costs_are_guessed_and_a_try_would_take_luck(target: float, tries: bool) -> None:
    policy, rows = Renewal(), batch(1)
    (row,) = rows.rows
    row.request = replace(row.request, repeats=True)
    rows.costs.typical = typical(target, 2.5e6)
    assert not policy.rests(rows)  # it has to be asked first
    assert policy.grow(frontier([0]), rows) == [[tries]]
    assert policy.rests(rows) != tries
    policy = Renewal()
    row.memory.clear()
    row.request = replace(row.request, repeats=False)  # what is measured soon says whether a try was one too many
    assert not policy.rests(rows)
    assert policy.grow(frontier([0]), rows) == [[True]]


def test_look_ups_in_vain_are_not_for_nothing_where_costs_are_guessed() -> None:
    def rest(target: float) -> int:
        policy, rows = Renewal(), batch(1)
        (row,) = rows.rows
        row.request = replace(row.request, repeats=True)
        rows.costs.typical = typical(target)
        pace = policy._pace(row, known=True)
        pace._own.steps = pace._overall.steps = 2 * pace._own.tokens
        policy.observe(rows, *finished([0], [0]))
        return pace.rest

    assert rest(1.1e7) == 16  # as long as a first rest may be
    assert rest(1.7e9) == 1
