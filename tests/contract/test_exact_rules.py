"""Exact: every registered acceptance rule, on every kind of draft it claims to judge, over many random tables.

One step is drafted and judged with no engine around it (see `rule_law.py`), which is cheap enough for a full product of
vocabularies, lengths, stop rules and trees.
"""

from __future__ import annotations

import pytest

from foretoken.accept.base import AcceptanceRule
from foretoken.accept.block import Block
from foretoken.accept.rejection import Rejection
from foretoken.types import Drawn
from tests.contract.adversaries import Lenient
from tests.contract.methods import draft_types, rules
from tests.contract.outcomes import distance
from tests.contract.rule_law import STOP_RULES, Step
from tests.contract.table import Table, near, only, random_table

Rule = type[AcceptanceRule]
LOSSLESS = [(rule, drawn) for rule in rules() if rule.lossless for drawn in draft_types(rule)]
LOSSY = [rule for rule in [*rules(), Lenient] if not rule.lossless]
CHAINS = [(2, ()), (4, (1,)), (3, (1, 1)), (2, (1, 1, 1))]
TREES = [(3, (2,)), (3, (3,)), (2, (2, 2)), (3, (2, 1))]


def name(value: object) -> str | None:
    return value.__name__ if isinstance(value, type) else value.value if isinstance(value, Drawn) else None


def tables(vocab_size: int, seed: int) -> dict[str, tuple[Table, Table]]:
    """Pairs of target and draft, from friends to strangers."""
    target, other = random_table(seed, vocab_size), random_table(seed + 1, vocab_size)
    half = vocab_size // 2
    return {
        "strangers": (target, other),
        "friends": (target, near(target, seed + 2)),
        "equal": (target, target),
        "impossible tokens": tuple(random_table(seed + i, vocab_size, dead=0.4) for i in (3, 4)),
        "disjoint": (only(target, range(half)), only(other, range(half, vocab_size))),
        "certain target": (only(target, [0]), other),
        "certain draft": (target, only(other, [1])),
    }


def step(rule: Rule, drawn: Drawn, pair: tuple[Table, Table], widths: tuple[int, ...], stop: str = "never") -> Step:
    return Step(rule(), drawn, *pair, widths, STOP_RULES[stop], temperature=0.0 if rule.greedy_only else 1.0)


@pytest.mark.parametrize("stop", STOP_RULES)
@pytest.mark.parametrize(("vocab_size", "widths"), CHAINS)
@pytest.mark.parametrize(("rule", "drawn"), LOSSLESS, ids=name)
def test_chains(rule: Rule, drawn: Drawn, vocab_size: int, widths: tuple[int, ...], stop: str) -> None:
    for kind, pair in tables(vocab_size, seed=100).items():
        one = step(rule, drawn, pair, widths, stop)
        assert distance(one.law(), one.exact()) < 1e-9, kind


@pytest.mark.parametrize(("vocab_size", "widths"), TREES)
@pytest.mark.parametrize(("rule", "drawn"), [(r, d) for r, d in LOSSLESS if r.max_children != 1], ids=name)
def test_trees(rule: Rule, drawn: Drawn, vocab_size: int, widths: tuple[int, ...]) -> None:
    for kind, pair in tables(vocab_size, seed=200).items():
        for stop in STOP_RULES:
            one = step(rule, drawn, pair, widths, stop)
            assert distance(one.law(), one.exact()) < 1e-9, f"{kind}, stop {stop}"


@pytest.mark.parametrize(("rule", "drawn"), LOSSLESS, ids=name)
def test_many_random_tables(rule: Rule, drawn: Drawn) -> None:
    for seed in range(300, 340):
        vocab_size = 2 + seed % 3
        pair = tables(vocab_size, seed)["impossible tokens" if seed % 2 else "friends"]
        one = step(rule, drawn, pair, (1, 1), sorted(STOP_RULES)[seed % len(STOP_RULES)])
        assert distance(one.law(), one.exact()) < 1e-9, seed


@pytest.mark.parametrize("rule", LOSSY, ids=name)
def test_lossy_rules_say_so_rightly(rule: Rule) -> None:
    """A rule marked lossy must be seen to be lossy, or the mark, or this suite, is wrong."""
    pairs = tables(3, seed=400).values()
    steps = [step(rule, drawn, pair, (1, 1)) for drawn in draft_types(rule) for pair in pairs]
    assert max(distance(one.law(), one.exact()) for one in steps) > 0.01


@pytest.mark.parametrize("stop", STOP_RULES)
def test_joint_judgement_never_keeps_less(stop: str) -> None:
    """Judging a chain as a whole keeps at least as much as judging it token by token, whatever ends the chain."""
    gains = []
    for seed in range(500, 506):
        pair = tables(3, seed)["strangers"]
        kept = [step(rule, Drawn.IID, pair, (1, 1, 1), stop).expected_accepted() for rule in (Rejection, Block)]
        gains.append(kept[1] - kept[0])
    assert min(gains) > -1e-9
    assert max(gains) > 0.01
