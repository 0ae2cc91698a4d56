"""What the text said the last time it came by here."""

from __future__ import annotations

from dataclasses import dataclass

from foretoken.draft.known import Known
from foretoken.errors import ConfigError
from foretoken.types import Row

ORDERS = (8, 4, 2, 1)  # tokens of context, the longest first
# How likely a look-up is right before the text has shown it: by context, then by trust, which is 0 where the context
# was followed by something else the time before, 1 where it was seen once, and grows each time it is followed alike.
# Rounded means over greedy answers of the built-in target.
PRIOR = (
    (0.5, 0.85, 0.96, 0.98),
    (0.35, 0.65, 0.85, 0.95),
    (0.3, 0.5, 0.7, 0.85),
    (0.2, 0.4, 0.65, 0.75),
)
CHANCE = 0.35  # a drawn token repeats what was said this much less often
TRUST = 3.0  # look-ups that such a guess counts for
MEMORY = 40.0  # look-ups after which older ones count half
LEAST = 0.05  # candidates that survive less often are not named
TRUSTED = 3  # more of it makes no difference


class Suffix(Known):
    """Find the longest context that was there before, and propose what followed it the last time; then go on from that.

    Prompt and answer are the text, so what is copied, quoted or said again costs no draft. How often such a proposal is
    right is counted for every token that is emitted, drafted or not, by length of the context and by how often it kept
    its word; a length policy knows by that what the next one is worth before anything is spent on it.

    Reference: Oliaro et al. 2024, SuffixDecoding, https://arxiv.org/abs/2411.04975; Saxena 2023, prompt lookup
    decoding, https://github.com/apoorvumang/prompt-lookup-decoding. Contexts of a few lengths in a table take the place
    of their suffix tree. Cost per step: some look-ups, no forwards.
    """

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options.

        Attributes:
            most: never more than this many tokens.
        """

        most: int = 16

        def __post_init__(self) -> None:
            if self.most < 1:
                raise ConfigError(f"most cannot be {self.most}", hint="1 proposes one token")

    def __init__(self, config: Config | None = None, model: None = None) -> None:
        self._most = (config or self.Config()).most

    def known(self, row: Row, most: int) -> tuple[list[int], list[float]]:
        if self not in row.memory:
            row.memory[self] = Said(len(row.request.prompt), row.request.sampling.temperature)
        said: Said = row.memory[self]
        said.read(row.tokens)
        return said.go_on(row.tokens, min(most, self._most), row.request.stop_token_ids)


class Said:
    """A text, and what came of looking it up.

    Args:
        prompt: tokens of it that are the prompt's, which tell nothing of how often the model repeats itself.
        temperature: of the request.
    """

    __slots__ = ("_asked", "_contexts", "_prompt", "_read", "_right")

    def __init__(self, prompt: int, temperature: float) -> None:
        self._prompt, self._read = prompt, 0
        # By context, as its hash: what followed it last, and the trust in that. A wrong guess is all a clash can do.
        self._contexts: list[tuple[int, dict[int, tuple[int, int]]]] = [(order, {}) for order in ORDERS]
        sure = TRUST * (1 - CHANCE * min(temperature, 1.0))
        self._right = [[sure * chance for chance in chances] for chances in PRIOR]
        self._asked = [[TRUST] * len(chances) for chances in PRIOR]

    def read(self, tokens: list[int]) -> None:
        """Read on to the end of the text."""
        for end in range(max(self._read, 1), len(tokens)):
            token, judged = tokens[end], end < self._prompt
            for index, (order, followed) in enumerate(self._contexts):
                if order > end:
                    continue
                context = hash(tuple(tokens[end - order : end]))
                if (seen := followed.get(context)) is None:
                    followed[context] = token, 1
                    continue
                before, trust = seen
                if not judged:
                    judged = True
                    self._judge(index, trust, before == token)
                followed[context] = token, min(trust + 1, TRUSTED) if before == token else 0
        self._read = len(tokens)

    def go_on(self, tokens: list[int], most: int, ends: frozenset[int]) -> tuple[list[int], list[float]]:
        """Tokens that may follow the text, and how likely each is right if those before are.

        Args:
            tokens: the text, read to its end.
            most: tokens at most.
            ends: tokens that nothing follows.
        """
        context, survival = tokens[-ORDERS[0] :], 1.0
        begin, chances = len(context), list[float]()
        while len(chances) < most and (found := self._look_up(context)):
            token, order, trust = found
            chance = self._right[order][trust] / self._asked[order][trust]
            survival *= chance
            if survival < LEAST:
                break
            context.append(token)
            chances.append(chance)
            if token in ends:
                break
        return context[begin:], chances

    def _look_up(self, context: list[int]) -> tuple[int, int, int] | None:
        """What followed the longest known context the last time, which of `ORDERS` it was, and the trust in it."""
        for index, (order, followed) in enumerate(self._contexts):
            if order <= len(context) and (found := followed.get(hash(tuple(context[-order:])))):
                return found[0], index, found[1]
        return None

    def _judge(self, index: int, trust: int, right: bool) -> None:
        """Count what became of a look-up."""
        rights, asked = self._right[index], self._asked[index]
        rights[trust] += right
        asked[trust] += 1
        if asked[trust] > MEMORY:
            rights[trust], asked[trust] = rights[trust] / 2, asked[trust] / 2
