"""Station 2: propose a token tree per row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from foretoken.costs import Costs
from foretoken.draft.ahead import draft_unasked, law_of
from foretoken.host import to_device, whole
from foretoken.length.base import LengthPolicy, Trained, single
from foretoken.models.base import Watch
from foretoken.rng import check_usable
from foretoken.sampling import PathOf, distribution
from foretoken.shape.base import TreeShape
from foretoken.types import Batch, Continuation, Draft, Drawn, Frontier, Row, Scores, Verdict, chained

AT_ONCE = 3  # tokens drawn together on a device that is dear to wait for, wanted or not


class Drafter(ABC):
    """Proposes tokens. Whatever it proposes, the output stays the target's; only the speed depends on it.

    Attributes:
        drawn: how siblings are chosen, which the acceptance rule must be able to judge.
        provides: what length policies may ask for: "prob", "logits", "hidden" (see `Frontier`).
        max_children: the widest tree it can draw.
        uses_model: whether it runs a draft model of its own.
        trained: what was trained for the target and drafts inside it; None for drafters that need nothing of the kind.
        reads_target: whether it builds on the target's hidden states, those of the prompt included.
        drafts: whether it ever proposes anything.
    """

    drawn: ClassVar[Drawn]
    provides: ClassVar[frozenset[str]] = frozenset()
    max_children: ClassVar[int] = 1
    uses_model: ClassVar[bool] = False
    trained: ClassVar[type[Trained] | None] = None
    reads_target: ClassVar[bool] = False
    drafts: ClassVar[bool] = True

    @dataclass(frozen=True, slots=True)
    class Config:
        """No options."""

    def __init__(self, config: Config | None = None, model: Any = None) -> None:  # noqa: B027
        """A drafter with its options, and its draft model, or what was trained for the target, if it has one."""

    def start(self, rows: list[Row], hidden: list[Tensor | None]) -> None:  # noqa: B027 - most keep nothing per row
        """Rows join at the end of the batch.

        Args:
            rows: the rows.
            hidden: per row [n, H] float, the target's last hidden states of the prompt's tokens but the last; None
                where there are none, or the drafter does not read them.
        """

    @abstractmethod
    def draft(self, batch: Batch, length: LengthPolicy, shape: TreeShape, max_nodes: int) -> Draft:
        """Propose a tree per row, at most `row.room` deep and `max_nodes` large, root included."""

    def rest(self, batch: Batch, length: LengthPolicy, max_nodes: int) -> Draft:
        """Propose what can be had for nothing, for a step in which drafting is not worth its cost."""
        return Draft.root_only(batch.roots, self.drawn)

    def observe(self, batch: Batch, draft: Draft, verdict: Verdict, scores: Scores) -> None:  # noqa: B027
        """Learn from a finished step; called after its tokens were committed and before finished rows leave."""

    def release(self, rows: Iterable[int]) -> None:  # noqa: B027
        """Rows leave; the others move as `swap_remove` says."""

    def priced(self, costs: Costs) -> Costs:
        """What a step costs with this drafter, for one that needs more or less than a forward per drafted token."""
        return costs


class ChainDrafter(Drafter):
    """Draws a chain token by token from laws of its own, until the length policy stops it.

    A request's sampling parameters apply to its scores as well (penalties follow the drafted path): that makes
    acceptance likely. The law `q` is kept, except where it does not matter: of likeliest tokens, and of `coupled` ones.

    Attributes:
        temperature: of the draft; None takes each request's own.
    """

    drawn: ClassVar[Drawn] = Drawn.IID
    provides: ClassVar[frozenset[str]] = frozenset({"prob", "logits"})
    temperature: float | None = None

    @abstractmethod
    def limits(self, batch: Batch) -> list[int]:
        """How deep each row can be drafted, whatever room it has."""

    @abstractmethod
    def score(self, batch: Batch, tokens: list[Tensor]) -> Scores:
        """Score what follows the newest token of each row.

        Args:
            batch: the rows.
            tokens: the roots and what was drafted below them, depth by depth, [B] int64 each; meaningless in rows that
                draft no more.

        Returns:
            Scores of one node per row, [B, 1, V].
        """

    def forwards(self, depth: int) -> int:
        """Draft forwards that `score` makes for the candidate at this depth (1 is the root's child)."""
        return 1

    def candidates(
        self,
        batch: Batch,
        tokens: list[Tensor],
        certain: bool,
        grow: list[bool],
        path_of: PathOf,
        likely: int,
        watch: Watch | None = None,
    ) -> tuple[Continuation, bool]:
        """Draw the next token of each row; a drafter that gets several at once for less may draw more.

        Args:
            batch: the rows.
            tokens: as `score` takes them.
            certain: whether every row takes the likeliest token.
            grow: per row. Whether it drafts on; the others spend no randomness.
            path_of: as `distribution` takes it.
            likely: how many may be wanted; never more are drawn.
            watch: as `LanguageModel.chain` takes it; a `Stop` only where `alone` says that it can, and random numbers
                are spent later then.

        Returns:
            One or more, and whether the random numbers they took are still to be spent.
        """
        scores = self.score(batch, tokens)
        hidden = None if scores.hidden is None else scores.hidden[:, -1:]
        logits = scores.logits[:, -1:]
        own = logits[:, 0].softmax(1)  # [B, V]
        if certain:
            prob, token = own.max(1, keepdim=True)
            return Continuation(token, prob, logits, hidden, None), False
        q = distribution(scores.logits, batch.rows, path_of, self.temperature)
        dice, law, depth = batch.draft_rng, q[:, 0], len(tokens) - 1
        token = to_device(single(dice.guess(law, grow, depth) if batch.coupled else dice.pick(law, grow)), q.device)
        return Continuation(token, own.gather(1, token), logits, hidden, q), False

    def alone(self, batch: Batch) -> int:
        """How many tokens a device can draw in one go, from the roots on, and stop by itself; 0 if it cannot."""
        return 0

    def draft(self, batch: Batch, length: LengthPolicy, shape: TreeShape, max_nodes: int) -> Draft:
        rows, device = batch.rows, batch.device
        room = [min(row.room, max_nodes - 1, most) for row, most in zip(rows, self.limits(batch), strict=True)]
        points = [row.request.sampling.greedy(self.temperature) for row in rows]
        certain = all(points)
        if device.type != "cpu" and (unasked := draft_unasked(self, certain, batch, length, shape, room)):
            return unasked
        paths: list[list[int]] = [[] for _ in rows]
        probs = [[1.0] for _ in rows]
        forwards, going = [0] * len(rows), [most > 0 for most in room]
        frontier = Frontier([[0]] * len(rows), [[1.0]] * len(rows), single(going))
        tokens, laws = [batch.roots], list[Tensor]()
        look = None if device.type == "cpu" else length.look
        plan = length.plan(batch, 0, least := AT_ONCE if look else 1)
        depth, ready, asked, sure = 0, 0, 0, plan.sure  # down to where: drafted, drawn, asked about, wanted anyway
        while any(going):
            growing = going
            if depth >= sure:
                decided = zip(going, length.grow(frontier, batch), shape.children(frontier), strict=True)
                growing = [one and grow and count > 0 for one, (grow,), (count,) in decided]
                asked = depth
            if not any(growing):
                break
            if depth == ready:
                plan = length.plan(batch, depth, least) if depth else plan
                likely = min(plan.draw, max(room) - depth)
                given = batch, tokens, certain, growing, lambda b, _: paths[b], likely
                drawn, peeked = self.candidates(*given, look or plan.enough)
                tokens += drawn.tokens.unbind(1)
                laws += [] if drawn.q is None or batch.coupled else [drawn.q]
                drawn = drawn.near(look)
                near = list(zip(drawn.tokens.tolist(), drawn.prob.tolist(), strict=True))
                first, ready = depth, depth + drawn.tokens.shape[1]
                sure, most = min(plan.sure, ready), plan.most if drawn.wanted is None else ready
                cost = sum(map(self.forwards, range(depth + 1, ready + 1)))
                forwards = [spent + cost * more for spent, more in zip(forwards, growing, strict=True)]
            begin, depth = depth - first, max(depth + 1, sure)  # so many together, then it is asked again
            end = depth - first
            taken, said, going = list[list[int]](), list[float](), []
            for b, (drafting, (row_tokens, row_probs)) in enumerate(zip(growing, near, strict=True)):
                deepest, ends = min(most, room[b]), rows[b].request.stop_token_ids
                new = up_to(ends, row_tokens[begin : min(end, deepest - first)]) if drafting else []
                paths[b] += new
                probs[b] += row_probs[begin:end]
                taken.append(new)
                said += row_probs[begin : begin + len(new)]
                going.append(len(new) == end - begin and depth < deepest and new[-1] not in ends)
            if peeked:
                batch.draft_rng.spend(list(map(len, taken)))
            if certain:
                check_usable(said)
            if any(going):
                newest, before = [[of[-1]] for of in probs], [of[asked + 1 : depth] for of in probs]
                frontier = Frontier([[depth]] * len(rows), newest, single(going), drawn, end - 1, ready, before)
        if not depth:
            return Draft.root_only(tokens[0], Drawn.IID)
        return chain(batch, paths, law_of(laws, list(map(len, paths))), probs, forwards, points)


def up_to(ends: frozenset[int], tokens: list[int]) -> list[int]:
    """Tokens as far as the first that nothing may follow, such as an end of sequence."""
    return tokens if ends.isdisjoint(tokens) else tokens[: 1 + min(map(tokens.index, ends.intersection(tokens)))]


def chain(
    batch: Batch,
    paths: list[list[int]],
    q: Tensor | None,
    prob: list[list[float]],
    forwards: list[int],
    points: list[bool] | None = None,
    least: int = 1,
) -> Draft:
    """A chain per row.

    Args:
        batch: the rows.
        paths: what was drafted below the root of each.
        q: [B, N, V] float or None. None where every token is a point mass.
        prob: as in `Draft`.
        forwards: as in `Draft`.
        points: as in `Draft`.
        least: nodes to have at least, the rest of them padding.
    """
    nodes = max(max(map(len, paths)) + 1, least)
    tokens = [
        [row.tokens[-1], *path, *[0] * (nodes - 1 - len(path))] for row, path in zip(batch.rows, paths, strict=True)
    ]
    sizes, drawn = [len(path) + 1 for path in paths], Drawn.POINT if q is None else Drawn.IID
    parents = chained(*sizes, least=least)
    return Draft(whole(tokens), parents, sizes, q, drawn, prob, forwards, points=points, chain=True)
