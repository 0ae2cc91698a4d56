"""The cumulative rule without a head: signals by hand, and where they stop a draft."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from foretoken.errors import ConfigError
from foretoken.length.proxy import Proxy
from foretoken.length.signals import PROB, SIGNALS, entropy
from foretoken.types import Continuation, Frontier
from tests.length import by_hand

LAW = [0.5, 0.25, 0.125, 0.125]  # entropy 1.75 ln 2


def drawn(depth: int, laws: Sequence[Sequence[float]], tokens: Sequence[int], shift: float = 0.0) -> Frontier:
    """A leaf per row, its token drawn from a law; logits may be off by a constant."""
    law = torch.tensor(laws, dtype=torch.float64)
    ids = torch.tensor(tokens)[:, None]
    prob = law.gather(1, ids)
    drawn = Continuation(ids, prob, (law.log() + shift)[:, None], None, None)
    return Frontier([[depth]] * len(laws), prob.tolist(), [[True]] * len(laws), drawn)


def certainty(leaf: Frontier, signal: str) -> float:
    """What a signal says of the first row's leaf."""
    return Proxy(Proxy.Config(signal=signal))._certainties(leaf)[0]


def drafted(policy: Proxy, probs: Sequence[Sequence[float]]) -> list[int]:
    """Candidates of each row in one step, given the draft probability of each that could be drawn."""
    batch, lengths = by_hand.batch(len(probs)), [0] * len(probs)
    growing = policy.grow(by_hand.frontier([0] * len(probs)), batch)
    for depth, prob in enumerate(zip(*probs, strict=True), 1):
        lengths = [length + more for length, (more,) in zip(lengths, growing, strict=True)]
        seen = drawn(depth, [[p, 1 - p] for p in prob], [0] * len(prob))
        wanted = zip(growing, policy.grow(seen, batch), strict=True)
        growing = [[before and more] for (before,), (more,) in wanted]
    return lengths


@pytest.mark.parametrize("shift", [0.0, 300.0])
def test_signals_by_hand(shift: float) -> None:
    leaf = drawn(1, [LAW], [2], shift)
    expected = {"prob": 0.125, "top1": 0.5, "margin": 0.25, "entropy": 1 - math.sqrt(0.2 * 1.75 * math.log(2))}
    assert expected.keys() == {PROB, *SIGNALS}
    for name in expected:
        assert certainty(leaf, name) == pytest.approx(expected[name]), name


def test_what_cannot_be_drawn_and_a_flat_law_give_numbers() -> None:
    certain = drawn(1, [[1.0, 0.0, 0.0, 0.0]], [0])
    assert [certainty(certain, name) for name in (PROB, *SIGNALS)] == pytest.approx([1.0] * 4)
    assert float(entropy(torch.zeros(4), gamma=9.0)) == 0


def test_at_the_root_nothing_is_in_doubt() -> None:
    for name in (PROB, *SIGNALS):
        assert certainty(by_hand.frontier([0, 0]), name) == 1.0


def test_what_was_seen_on_a_device_is_taken_where_logits_stayed_there() -> None:
    leaf = drawn(1, [LAW], [2])
    assert leaf.drawn is not None
    for name in SIGNALS:
        seen = Proxy(Proxy.Config(signal=name)).look(leaf.drawn)
        near = replace(leaf, drawn=replace(leaf.drawn, logits=None, seen=seen))
        assert certainty(near, name) == certainty(leaf, name)


def test_it_stops_after_the_token_that_makes_a_rejection_too_likely() -> None:
    """Kept .9, .72, .504 against a risk of .3: the third token is drawn, nothing after it. A head needs one more."""
    assert drafted(Proxy(Proxy.Config(threshold=0.3)), [[0.9, 0.8, 0.7, 0.9, 0.9]]) == [3]


def test_rows_have_products_of_their_own_and_steps_start_again() -> None:
    policy = Proxy(Proxy.Config(threshold=0.5))
    probs = [[0.75, 0.75, 0.75, 0.75], [0.25, 1.0, 1.0, 1.0], [1.0, 0.5, 1.0, 0.75]]
    assert drafted(policy, probs) == [3, 1, 4]
    assert drafted(policy, probs[::-1]) == [4, 1, 3]
    assert drafted(policy, probs[:1]) == [3]


def test_the_signal_decides() -> None:
    leaf = drawn(1, [LAW], [3])
    for name in (PROB, *SIGNALS):
        risk = 1 - certainty(leaf, name)
        for threshold, more in ((risk + 1e-6, True), (risk - 1e-6, False)):
            policy, batch = Proxy(Proxy.Config(threshold=threshold, signal=name)), by_hand.batch(1)
            policy.grow(by_hand.frontier([0]), batch)
            assert policy.grow(leaf, batch) == [[more]], name


def test_most_wins() -> None:
    assert drafted(Proxy(Proxy.Config(most=2)), [[1.0] * 5]) == [2]
    assert drafted(Proxy(Proxy.Config(most=0)), [[1.0] * 5]) == [0]


def test_options_are_checked() -> None:
    for bad in ({"threshold": 1.5}, {"most": -1}, {"signal": "entropi"}, {"gamma": -0.1}):
        with pytest.raises(ConfigError):
            Proxy.Config(**bad)  # type: ignore[arg-type]
