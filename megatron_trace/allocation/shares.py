"""Splitting a whole number."""

from collections.abc import Sequence


def split_evenly(total: int, room: Sequence[int]) -> list[int]:
    """Shares of `total`, as equal as `room` allows, the remainder to the first; less than `total` only if full."""
    shares, left = [0] * len(room), total
    while left and (open_shares := [i for i, limit in enumerate(room) if shares[i] < limit]):
        each, remainder = divmod(left, len(open_shares))
        for rank, i in enumerate(open_shares):
            shares[i] += min(room[i] - shares[i], each + (rank < remainder))
        left = total - sum(shares)
    return shares
