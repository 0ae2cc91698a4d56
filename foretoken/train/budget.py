"""The one dial of a training: minutes or tokens, from which everything else follows."""

from __future__ import annotations

import re
from dataclasses import dataclass

from foretoken.errors import ConfigError

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
TIME = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)")
HINT = "write a time (`90s`, `3m`, `2h`) or a number of tokens (`2000000`, `2e6`)"


@dataclass(frozen=True, slots=True)
class Budget:
    """How much to spend: one of the two is set.

    Attributes:
        seconds: of wall-clock time.
        tokens: that a model reads.
    """

    seconds: float | None = None
    tokens: int | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read `3m` or `2000000`.

        Raises:
            ConfigError: it is neither, or nothing.

        Example:
            >>> Budget.parse("1.5h"), Budget.parse("2e6")
            (Budget(seconds=5400.0, tokens=None), Budget(seconds=None, tokens=2000000))
        """
        if match := TIME.fullmatch(text):
            made = cls(seconds=float(match[1]) * UNITS[match[2]])
        else:
            try:
                made = cls(tokens=int(float(text.replace("_", ""))))
            except (ValueError, OverflowError):
                # `3M` could be meant as minutes or as millions, so it is neither.
                raise ConfigError(f"option `--budget` cannot be {text!r}", hint=HINT) from None
        if (made.seconds or made.tokens or 0) <= 0:
            raise ConfigError(f"option `--budget` cannot be {text!r}", hint="there is nothing to spend")
        return made

    def __str__(self) -> str:
        return f"{self.tokens} tokens" if self.seconds is None else f"{self.seconds:g} s"
