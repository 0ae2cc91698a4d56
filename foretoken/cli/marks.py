"""Text with marks that tell where each token came from; readable without colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from foretoken.tokenizer import TextPieces, Tokenizer

if TYPE_CHECKING:
    from foretoken.types import Origin

# Origin value -> mark before, mark after, style.
MARKS = {"accepted": ("[", "]", "green"), "recovered": ("~", "", "yellow"), "bonus": ("", "", "")}


class Marker:
    """Marks one answer as it grows.

    Args:
        tokenizer: the target's.
        stop: texts that end the answer.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._pieces = TextPieces(tokenizer.decode, stop, tokenizer.open_ids)

    def mark(self, tokens: Sequence[int], origins: Sequence[Origin], *, final: bool = False) -> Text:
        """What these tokens add, with marks.

        Args:
            tokens: emitted ids.
            origins: where each came from.
            final: hand out the text held back, too; nothing follows.
        """
        runs: list[tuple[str, str]] = []
        for token, origin in zip(tokens, origins, strict=True):
            self._pieces.push(token)
            text = self._pieces.take()
            if runs and origin.value == runs[-1][0] == "accepted":  # one mark for all of a step's accepted tokens
                text = runs.pop()[1] + text
            runs.append((origin.value, text))
        tail = self._pieces.take(final=True) if final else ""
        return Text().join([*(_marked(text, kind) for kind, text in runs), Text(tail)])


def legend() -> Text:
    """What the marks mean."""
    meanings = (("accepted", "drafted and accepted", ""), ("recovered", "recovered", " after a wrong guess"))
    entries = [Text.assemble(_marked(word, kind), (more, "dim")) for kind, word, more in meanings]
    return Text("  ").join([*entries, Text.assemble(_marked("bonus", "bonus"), (" otherwise", "dim"))])


def _marked(text: str, kind: str) -> Text:
    """Marks stand inside the surrounding white space, so that lines and words stay where they were."""
    body = text.strip()
    if not body:
        return Text(text)
    before, after, style = MARKS[kind]
    start = text.index(body)
    return Text.assemble(text[:start], (before, "dim"), (body, style), (after, "dim"), text[start + len(body) :])
