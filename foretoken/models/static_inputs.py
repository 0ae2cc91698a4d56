"""What a forward of fixed places reads, packed into one tensor."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

WINDOW = 64  # pending entries, the new ones included, up to which a forward is padded and captured: bits of a number


class Reading(NamedTuple):
    """What a forward reads.

    Attributes:
        lengths: [B] int64. Committed entries of each row.
        tokens: [B, N] int64.
        positions: [B, N] int64.
        slots: [B, N] int64. Where the new entries go: in their row, or, once on the device, counted through all rows.
        known: [B, P+N] int64 or None. Positions of the pending entries and the new ones, where there are windows.
        mask: [B, N, P+N] bool. Which of them each new token sees.
    """

    lengths: Tensor
    tokens: Tensor
    positions: Tensor
    slots: Tensor
    known: Tensor | None
    mask: Tensor

    def at(self, device: torch.device, capacity: int) -> Reading:
        """On a device, in a storage of so many slots per row."""
        slots = self.slots + torch.arange(len(self.slots))[:, None] * (capacity + 1)
        parts = (self.lengths, self.tokens, self.positions, slots, self.known, self.mask)
        return Reading(*(None if one is None else one.to(device, non_blocking=True) for one in parts))  # type: ignore[arg-type]


class Inputs:
    """Inputs of one size, always in the same place, and in one piece, so that they come there in one copy.

    Args:
        rows: B.
        width: N.
        device: where.

    Attributes:
        held: [B, 1+4N+W] int64. As in `Reading`, with one bit of a number for each entry that a token sees.
        width: as given.
    """

    def __init__(self, rows: int, width: int, device: torch.device) -> None:
        self.width = width
        with torch.inference_mode(False):  # or they could not be written to outside of that mode
            self.held = torch.zeros(rows, 1 + 4 * width + WINDOW, dtype=torch.int64, device=device)
            self._order = torch.arange(WINDOW, device=device)
            self._tokens = self._parts(self.held)[1]

    def _parts(self, held: Tensor) -> tuple[Tensor, ...]:
        return torch.split(held, [1, *[self.width] * 4, WINDOW], 1)

    def write(self, read: Reading, capacity: int) -> None:
        """Copy what a forward is given. Padding sees nothing that is pending, and goes to the slot nobody reads.

        Args:
            read: on the CPU, the tokens perhaps not.
            capacity: slots of a row.
        """
        rows, new, count = read.mask.shape
        near = torch.zeros(self.held.shape, dtype=torch.int64)
        lengths, tokens, positions, slots, seen, known = self._parts(near)
        lengths[:rows, 0] = read.lengths
        positions[:rows, :new] = read.positions
        slots[:] = capacity
        slots[:rows, :new] = read.slots
        slots += torch.arange(len(near))[:, None] * (capacity + 1)
        seen[:rows, :new] = (read.mask.to(torch.int64) << torch.arange(count)).sum(-1)
        if read.known is not None:
            known[:rows, :count] = read.known
        here = read.tokens.device.type == "cpu"
        if here:
            tokens[:rows, :new] = read.tokens
        # Host memory is staged before the call returns, so that nobody has to wait.
        self.held.copy_(near, non_blocking=True)
        if not here:
            self._tokens[:rows, :new].copy_(read.tokens)

    def read(self) -> Reading:
        """What is there, found on the device."""
        lengths, tokens, positions, slots, seen, known = self._parts(self.held)
        return Reading(lengths[:, 0], tokens, positions, slots, known, (seen[..., None] >> self._order & 1).bool())
