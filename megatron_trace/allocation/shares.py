"""Splitting a whole number."""

from collections.abc import Sequence


def split_evenly(total: int, room: Sequence[int]) -> list[int]:
    """Shares of `total`, as equal as `room` allows, with the remainder to the first.

    The shares sum to `total`, or to the sum of `room` where that is less.
    """
    shares = [0] * len(room)
    left = total
    while left:
        unfilled = [index for index, limit in enumerate(room) if shares[index] < limit]
        if not unfilled:
            break
        each, remainder = divmod(left, len(unfilled))
        for rank, index in enumerate(unfilled):
            wanted = each + (rank < remainder)
            shares[index] += min(room[index] - shares[index], wanted)
        # What did not fit because a share reached its limit is spread over the others.
        left = total - sum(shares)
    return shares
