"""Station 1: prompt -> token ids, and ids -> text pieces that never split a character."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from foretoken.errors import RequestError

Message = Mapping[str, str]
Prompt = str | Sequence[Message]

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


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
            RequestError: the prompt is empty, or there is no template for messages.
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
        encoded = self.backend.apply_chat_template(list(prompt), add_generation_prompt=True, return_dict=True)
        return tuple(encoded["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        text: str = self.backend.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

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


class TextPieces:
    """The text of one request as it grows: decodes token by token, holds back what is not final, finds stop strings.

    Args:
        decode: token ids -> text.
        stop: texts that end the request.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._from = 0  # first token of the decoding window
        self._read = 0  # tokens whose text is in `text`
        self._given = 0  # characters of `text` already handed out
        self.text = ""
        self.stopped = False

    def push(self, token: int) -> bool:
        """Take one more token; True when a stop string is now complete, and `text` ends before it."""
        self._ids.append(token)
        if self._stop:
            self._decode_new()
        return self.stopped

    def _decode_new(self, *, final: bool = False) -> None:
        """Move what is new from ids to `text`, unless it ends inside a character (`final`: even then)."""
        if self.stopped or self._read == len(self._ids):
            return
        # Decoding a token needs its left neighbours (spaces, multi-token characters), but not the whole text.
        before = self._decode(self._ids[self._from : self._read])
        window = self._decode(self._ids[self._from :])
        if not final and (len(window) <= len(before) or window.endswith(REPLACEMENT)):
            return
        self._from, self._read = self._read, len(self._ids)
        searched = max(len(self.text) - max((len(s) for s in self._stop), default=0), 0)
        self.text += window[len(before) :]
        found = [at for s in self._stop if (at := self.text.find(s, searched)) >= 0]
        if found:
            self.text = self.text[: min(found)]
            self.stopped = True

    def take(self, *, final: bool = False) -> str:
        """Text that is certain and was not handed out yet; with `final`, all of it."""
        self._decode_new(final=final)
        end = len(self.text) if final or self.stopped else len(self.text) - self._held()
        piece = self.text[self._given : end]
        self._given = max(end, self._given)
        return piece

    def _held(self) -> int:
        """Characters at the end that may be the beginning of a stop string."""
        longest = max((len(s) for s in self._stop), default=0)
        for size in range(min(longest - 1, len(self.text)), 0, -1):
            if any(s.startswith(self.text[-size:]) for s in self._stop):
                return size
        return 0
