"""Which rows share a micro-batch: packed end to end, and balanced over ranks and micro-batches by cost."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Packing:
    """How rows are laid into micro-batches.

    Attributes:
        capacity: most tokens of a micro-batch, padding included.
        row_multiple: every row is padded to a multiple of this many tokens (context parallelism cuts it up).
        total_multiple: so is the micro-batch as a whole (sequence parallelism, FP8).
        count_multiple: every rank has a multiple of this many micro-batches (interleaved pipeline).
        attention_scale: tokens of history at which attention costs as much as everything else; a row of l tokens
            costs l·(1 + l / (2·attention_scale)).
    """

    capacity: int
    row_multiple: int = 1
    total_multiple: int = 1
    count_multiple: int = 1
    attention_scale: float = float("inf")

    def padded(self, length: int) -> int:
        """Tokens that a row of `length` tokens takes."""
        return -(-length // self.row_multiple) * self.row_multiple

    def total(self, padded: int) -> int:
        """Tokens that rows of `padded` tokens together are filled up to; at least one multiple."""
        unit = self.total_multiple
        return max(-(-padded // unit), 1) * unit

    def cost(self, length: int) -> float:
        """Computation of a row, in tokens without attention."""
        return length * (1.0 + length / (2.0 * self.attention_scale))


def plan_micro_batches(
    lengths: Sequence[int], selected: Sequence[int], *, ranks: int, packing: Packing
) -> list[list[list[int]]]:
    """Which rows each data-parallel rank computes in which micro-batch: `plan[rank][micro_batch] -> rows`.

    The costliest row first, each goes where the least cost is and room is left; there are as few micro-batches as hold
    all rows so. All ranks get equally many; an empty one is a dummy. Call it once for the rows that teach the policy
    and once for the rest, which need no backward pass.

    Args:
        lengths: tokens of every row.
        selected: the rows to plan, as indices into `lengths`.
        ranks: data-parallel size.

    Raises:
        ValueError: a row alone exceeds the capacity.
    """
    if not selected:
        return [[] for _ in range(ranks)]
    order = sorted(selected, key=lambda index: (-lengths[index], index))
    room = packing.capacity // packing.total_multiple * packing.total_multiple
    longest = packing.padded(lengths[order[0]])
    if longest > room:
        raise ValueError(
            f"a row of {longest} tokens (padding included) exceeds "
            f"learning.batching.micro_batch_tokens={packing.capacity}; raise it to the longest rollout"
        )
    fewest = -(-sum(packing.padded(lengths[index]) for index in order) // (room * ranks))
    count = -(-fewest // packing.count_multiple) * packing.count_multiple
    while (bins := _pack(lengths, order, ranks * count, room, packing)) is None:
        count += packing.count_multiple
    return [[bins[number * ranks + rank] for number in range(count)] for rank in range(ranks)]


def longest_micro_batch(
    lengths: Sequence[int], plan: Sequence[Sequence[Sequence[int]]], packing: Packing
) -> int:
    """Tokens, padding included, of the longest micro-batch of a plan over all ranks."""
    batches = [rows for batches in plan for rows in batches]
    used = (sum(packing.padded(lengths[index]) for index in rows) for rows in batches)
    return max(map(packing.total, used), default=0)


def _pack(
    lengths: Sequence[int], order: Sequence[int], count: int, room: int, packing: Packing
) -> list[list[int]] | None:
    """The rows in `count` bins; None where they do not fit."""
    bins: list[list[int]] = [[] for _ in range(count)]
    used, cost = [0] * count, [0.0] * count
    for index in order:
        size = packing.padded(lengths[index])
        fitting = [number for number in range(count) if used[number] + size <= room]
        if not fitting:
            return None
        best = min(fitting, key=lambda number: (cost[number], number))
        bins[best].append(index)
        used[best] += size
        cost[best] += packing.cost(lengths[index])
    return bins
