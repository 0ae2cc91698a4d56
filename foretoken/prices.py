"""What drafting more costs one row, and what it saves."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from foretoken.costs import Costs, GivenCosts

if TYPE_CHECKING:
    from foretoken.types import Batch, Row


class Prices(NamedTuple):
    """What drafting costs one row, in seconds of the batch's time; all rows of the batch share its forwards.

    Attributes:
        costs: of forwards.
        rows: rows in the batch.
        drafting: rows of it that still draft, and so pay for going on.
        least: tokens of each row that are read in any case.
    """

    costs: Costs
    rows: int = 1
    drafting: int = 1
    least: int = 1

    @property
    def plain_s(self) -> float:
        """Seconds of a step of plain decoding, after others of it."""
        return self.costs.plain_s(self.rows)

    def step_s(self, drafted: int) -> float:
        """Seconds of the next step if all rows draft so many tokens."""
        return self.draw_s(drafted) + self.read_s(drafted)

    def draw_s(self, drafted: int) -> float:
        """Seconds of drawing so many tokens for all rows."""
        return self.costs.draft_s(self.rows, drafted) if drafted else 0.0

    def read_s(self, drafted: int) -> float:
        """Seconds of the next step if all rows verify so many tokens that cost nothing to draw."""
        read = self.rows * max(drafted + 1, self.least)
        return (self.costs.verify_s(read) if read > self.rows else self.plain_s) + self.costs.switch_s(read)

    def back_s(self, drafted: int) -> float:
        """Seconds that the first step without candidates after such a one takes longer."""
        return self.costs.switch_s(self.rows * self.least, after=self.rows * max(drafted + 1, self.least))

    @property
    def share(self) -> float:
        """This row's part of what going on costs."""
        return self.rows / max(self.drafting, 1)


HASTE = 8e6  # weights that are read in the time a draft forward takes longer for following one of the target
CHANGE = 3e7  # and in the time a step of several tokens takes longer, and those after it, for not being like the others
ASKING = 3e6  # and while candidates are looked for in vain


def typical(target: float, draft: float = 0.0) -> GivenCosts:
    """What steps of a pair cost anywhere, as far as the sizes of its models tell, in plain steps.

    Args:
        target: its weights of 16 bits, or as many as take that memory.
        draft: the draft model's, if there is one.
    """
    several = 1.0 + CHANGE / target
    costs = GivenCosts((draft + HASTE) / target, {1: 1.0, 2: several + 0.1, 3: several + 0.2})
    costs.asking, costs.guessed = ASKING / target, True
    return costs


# What is told to those whom the clock must not decide for, where nothing is known of the models.
TYPICAL = Prices(GivenCosts(0.2, {1: 1.0, 2: 1.05}))


def prices(row: Row, batch: Batch, drafting: int) -> Prices:
    """What a row has to reckon with.

    Args:
        row: one of the batch. One that has to repeat is told what is typical: neither the clock nor its neighbours may
            decide for it.
        batch: knows what forwards cost.
        drafting: rows that still draft.
    """
    if row.request.repeats:
        return Prices(batch.costs.typical) if batch.costs.typical else TYPICAL
    return Prices(batch.costs, len(batch.rows), drafting)
