"""Methods that cannot be exact together are refused before anything is loaded, with a way out."""

from __future__ import annotations

import pytest

from foretoken.accept.greedy import Greedy
from foretoken.accept.rejection import Rejection
from foretoken.draft.model import ModelDrafter
from foretoken.engine import check_fit
from foretoken.errors import ConfigError
from foretoken.length.confidence import Confidence
from foretoken.length.fixed import Fixed
from foretoken.shape.chain import Chain
from foretoken.types import Drawn
from tests.contract.adversaries import LookUp, Twins, TwoGuesses


class OnlyDraws(Rejection):
    """A rule that cannot judge look-ups."""

    handles = frozenset({Drawn.IID})


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ((LookUp, Fixed, Chain, OnlyDraws), "`LookUp` chooses children as point, which rule `OnlyDraws` cannot judge"),
        ((LookUp, Confidence, Chain, Rejection), "`Confidence` needs prob, which drafter `LookUp` has not"),
        ((ModelDrafter, Fixed, Twins, Greedy), "`ModelDrafter` handles 1 child per node, shape `Twins` makes 2"),
        ((TwoGuesses, Fixed, Twins, Rejection), "`Rejection` handles 1 child per node, shape `Twins` makes 2"),
    ],
)
def test_misfits_are_refused(methods: tuple[type, type, type, type], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check_fit(*methods)
    assert caught.value.hint


def test_a_tree_with_a_rule_for_trees_is_fine() -> None:
    check_fit(TwoGuesses, Fixed, Twins, Greedy)
