"""Station 1: prompt -> token ids, and ids -> text pieces that never split a character."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from foretoken.errors import RequestError

Message = Mapping[str, str]
Prompt = str | Sequence[Message]

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
BYTE = re.compile("<0x[0-9A-F]{2}>")  # how vocabularies with byte fallback write a single byte
CONTEXT = 4  # tokens kept before new text; a character is at most four bytes, so at most four tokens


class Tokenizer:
    """A `transformers` tokenizer, as the engine needs it.

    Args:
        backend: a tokenizer loaded with `AutoTokenizer`.
    """

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def encode(self, prompt: Prompt, *, raw: bool = False) -> tuple[int, ...]:
        """Token ids of a prompt.

        A string is what a user says and goes through the chat template where there is one; `raw` takes it as it is.
        A list of messages ({"role", "content"}) always needs a template.

        Raises:
            RequestError: the prompt is empty, a message is incomplete, or there is no template that takes the messages.
        """
        if not prompt or (isinstance(prompt, str) and not prompt.strip()):
            raise RequestError("the prompt is empty", hint="give some text, or `-` to read it from standard input")
        has_template = bool(getattr(self.backend, "chat_template", None))
        if isinstance(prompt, str):
            if raw or not has_template:
                return tuple(self.backend(prompt)["input_ids"])
            prompt = [{"role": "user", "content": prompt}]
        if not has_template:
            raise RequestError(
                "this tokenizer has no chat template for messages", hint="give the prompt as one string of text"
            )
        _check_messages(prompt)
        try:
            encoded = self.backend.apply_chat_template(list(prompt), add_generation_prompt=True, return_dict=True)
        except TemplateError as error:  # templates refuse what they have no form for, a system message for one
            raise RequestError(
                f"the chat template does not take these messages: {error}",
                hint="most templates want user and assistant in turn, some no system message",
            ) from error
        return tuple(encoded["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        text: str = self.backend.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    @cached_property
    def open_ids(self) -> frozenset[int]:
        """Ids after which earlier text may still change, or which have none of their own.

        Bytes of a vocabulary with byte fallback become text as a whole run (one wrong byte spoils all of it), and
        special tokens are left out, so they do not end a run.
        """
        special = {index for index, token in self.backend.added_tokens_decoder.items() if token.special}
        return frozenset(
            special | {index for token, index in self.backend.get_vocab().items() if BYTE.fullmatch(token)}
        )

    def token(self, token_id: int) -> str:
        """One token as text, special tokens included."""
        text: str = self.backend.decode([token_id], clean_up_tokenization_spaces=False)
        return text

    def conflict(self, other: Tokenizer) -> str | None:
        """Why the other tokenizer's ids do not mean the same, or None. Equal size is no proof.

        An id only one of them uses is no conflict: the draft never proposes it, or never sees it.
        """
        mine = {index: token for token, index in self.backend.get_vocab().items()}
        theirs = {index: token for token, index in other.backend.get_vocab().items()}
        shared = mine.keys() & theirs.keys()
        differing = sorted(index for index in shared if mine[index] != theirs[index])
        if differing:
            first = differing[0]
            return f"{len(differing)} of {len(shared)} ids differ; id {first} is {mine[first]!r} and {theirs[first]!r}"
        if len(shared) < 0.9 * len(mine):
            return f"only {len(shared)} of {len(mine)} ids exist in both"
        return None


def _check_messages(messages: Sequence[Any]) -> None:
    """Templates print what is missing as nothing, so refuse it here."""
    for number, message in enumerate(messages, 1):
        for key in ("role", "content"):
            if not isinstance(message, Mapping) or not isinstance(message.get(key), str):
                raise RequestError(
                    f"message {number} has no `{key}` that is text",
                    hint='a message is {"role": "user", "content": "some text"}',
                )


class TextPieces:
    """The text of one request as it grows: holds back what is not final and finds stop strings.

    Only a window of the last tokens is decoded, so a token costs the same however long the text is.

    Args:
        decode: token ids -> text.
        stop: texts that end the request.
        open_ids: ids after which earlier text may still change (see `Tokenizer.open_ids`).
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stop: Sequence[str] = (),
        open_ids: frozenset[int] = frozenset(),
    ) -> None:
        self._decode = decode
        self._stop = tuple(stop)
        self._open_ids = open_ids
        self._window: list[int] = []  # the last tokens
        self._read = 0  # characters of the window's text that are settled
        self._ready = ""  # settled text that was not handed out yet
        self._settled = True  # whether that is all the text of the tokens so far
        self.stopped = False

    def push(self, token: int) -> bool:
        """Take one more token; True when a stop string is now complete, and the text ends before it."""
        self._window.append(token)
        self._settled = False
        if self._stop:
            self._advance()
        return self.stopped

    def take(self, *, final: bool = False) -> str:
        """Text that is certain and was not handed out yet; with `final`, all of it."""
        if final or not (self._stop or self._open()):
            self._advance(final=final)
        end = len(self._ready) if final or self.stopped else len(self._ready) - self._stop_begun()
        piece, self._ready = self._ready[:end], self._ready[end:]
        return piece

    def _advance(self, *, final: bool = False) -> None:
        """Decode the window and settle what the next token cannot change (`final`: everything)."""
        if self.stopped or self._settled:
            return
        new = self._decode(self._window)[self._read :]
        text = self._ready + new
        # The one that is complete first ends the text, and of two that end together the longer one.
        complete = [(at + len(s), at) for s in self._stop if (at := text.find(s)) >= 0]
        if complete:
            self._ready, self.stopped = text[: min(complete)[1]], True
            return
        unsettled = 0 if final else self._unsettled(new)
        self._ready = text[: len(text) - unsettled]
        self._read += len(new) - unsettled
        self._settled = not unsettled
        if len(self._window) > 2 * CONTEXT:
            self._shorten(unsettled)

    def _open(self) -> bool:
        """Whether the next token may change all the text since it was settled last."""
        return bool(self._window) and self._window[-1] in self._open_ids

    def _unsettled(self, new: str) -> int:
        """Characters at the end of the newest text that the next token may change."""
        if self._open():
            return len(new)
        tail = new[1 - CONTEXT :]  # an unfinished character is at most three bytes, each perhaps a replacement
        return len(tail) - len(tail.rstrip(REPLACEMENT))

    def _shorten(self, unsettled: int) -> None:
        """Forget tokens whose text is settled, but keep some: they decide about spaces and unfinished characters."""
        start = len(self._window) - CONTEXT
        while start > 0 and self._window[start] in self._open_ids:
            start -= 1  # a run of bytes means something else when it is cut
        read = len(self._decode(self._window[start:])) - unsettled
        if read > 0:
            self._window, self._read = self._window[start:], read

    def _stop_begun(self) -> int:
        """Characters at the end that may be the beginning of a stop string."""
        longest = max((len(s) for s in self._stop), default=0)
        for size in range(min(longest - 1, len(self._ready)), 0, -1):
            if any(s.startswith(self._ready[-size:]) for s in self._stop):
                return size
        return 0
