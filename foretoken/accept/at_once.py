"""One look at a device: a token is drawn for every possible number of accepted ones before anybody knows that."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from foretoken.accept.base import AcceptanceRule
from foretoken.rng import Dice, check_usable, land
from foretoken.types import Draft

MOST = 1 << 25  # probabilities for which what is left of each node's law fits in memory beside it


def pays(rule: AcceptanceRule, kind: type[AcceptanceRule], draft: Draft, p: Tensor) -> bool:
    """Whether one look saves time, there is room for it, and it comes to what the rule itself would say.

    Args:
        rule: decides.
        kind: whose verdict is known at once; a rule made of it may have its own.
        draft: what was drafted.
        p: [B, N, V] float. What the request asks to sample from after each node.
    """
    same = type(rule).accept is kind.accept
    return same and p.device.type != "cpu" and draft.q is not None and p.numel() <= MOST


def settle_at_once(
    draft: Draft,
    rng: Dice,
    left: Tensor,
    coins: Tensor,
    seen: Sequence[Tensor],
    accepted: Callable[[Sequence[int], list[list[float]], Sequence[Tensor]], list[int]],
) -> tuple[Draft, list[int], list[int]]:
    """Judge chains that have a law.

    Args:
        draft: what was drafted.
        rng: the rows' random numbers.
        left: [B, N, V] float. What the next token is drawn from if the chain ends with that node.
        coins: [B, N] int64, wherever it is. How many coins have been tossed when it does.
        seen: what the verdict follows from, on the device.
        accepted: how many tokens are, per row, given nodes per row, the rows' random numbers, and `seen` on the CPU.

    Returns:
        The draft, on the CPU but for its law.
        How many tokens are accepted, per row.
        The token after them, per row.
    """
    numbers = rng.peek(left.shape[1] + 1)
    toss = numbers.to(coins.device, non_blocking=True).gather(1, coins)
    near, (said, mass, tossed, *here) = draft.near(*land(left, toss[..., None]), coins, *seen)
    counts = accepted(near.sizes, numbers.tolist(), here)
    ends = list(enumerate(counts))
    check_usable([float(mass[end]) for end in ends])
    rng.spend([int(tossed[end]) + 1 for end in ends])
    return near, counts, [int(said[end]) for end in ends]
