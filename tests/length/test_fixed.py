"""Fixed: so many tokens, whatever happens."""

from __future__ import annotations

import pytest

from foretoken.errors import ConfigError
from foretoken.length.fixed import Fixed
from tests.length.by_hand import batch, frontier


def test_it_grows_until_k() -> None:
    policy, rows = Fixed(Fixed.Config(3)), batch(5)
    assert policy.grow(frontier([0, 1, 2, 3, 4]), rows) == [[True], [True], [True], [False], [False]]


def test_zero_never_grows() -> None:
    assert Fixed(Fixed.Config(0)).grow(frontier([0]), batch(1)) == [[False]]


def test_a_negative_length_is_refused() -> None:
    with pytest.raises(ConfigError, match="k cannot be -1"):
        Fixed.Config(-1)
