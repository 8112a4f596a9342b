"""Which rows share a micro-batch: packed end to end, balanced over ranks by cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from megatron_trace.learning.rows import Row


@dataclass(frozen=True)
class Packing:
    """How rows are laid into micro-batches.

    Attributes:
        capacity: most tokens of a micro-batch, padding included.
        row_multiple: every row is padded to a multiple of this many tokens (context parallelism
            cuts it up).
        total_multiple: so is the micro-batch as a whole (sequence parallelism, FP8).
        count_multiple: every rank has a multiple of this many micro-batches (interleaved pipeline).
        attention_scale: tokens of history at which attention costs as much as everything else; a
            row of l tokens costs l·(1 + l / (2·attention_scale)).
    """

    capacity: int
    row_multiple: int = 1
    total_multiple: int = 1
    count_multiple: int = 1
    attention_scale: float = float("inf")

    @property
    def room(self) -> int:
        """Most tokens of a micro-batch that is a whole number of `total_multiple`."""
        return self.capacity // self.total_multiple * self.total_multiple

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


@dataclass(frozen=True)
class Layout:
    """What the layout of the train ranks asks of micro-batches.

    Attributes:
        packing: how rows are laid into micro-batches.
        rank: this data-parallel rank.
        ranks: data-parallel ranks.
        equal_lengths: all micro-batches of a pass have the same number of tokens. Pipeline stages
            need it: they send each other hidden states of one shape.
    """

    packing: Packing
    rank: int = 0
    ranks: int = 1
    equal_lengths: bool = False


@dataclass(frozen=True)
class MicroBatch:
    """The rows of one micro-batch, and where they lie in its sequence.

    Attributes:
        rows: indices of b rows; none for a dummy.
        starts: where each row begins, and as the last entry the tokens of the whole, [b + 1]. A
            dummy is one row of padding.
    """

    rows: list[int]
    starts: list[int]


@dataclass(frozen=True)
class Pass:
    """One run of the model over some rows.

    Attributes:
        micro_batches: this rank's. Every data-parallel rank has equally many.
        backward: gradients are computed.
    """

    micro_batches: list[MicroBatch]
    backward: bool


def plan_pass(
    rows: Sequence[Row], selected: Sequence[int], layout: Layout, *, backward: bool
) -> Pass:
    """Plan one pass over the rows `selected`; a rank without rows gets dummies.

    Raises:
        ValueError: a row alone exceeds the capacity.
    """
    packing = layout.packing
    lengths = [len(row.tokens) for row in rows]
    by_rank = plan_micro_batches(lengths, selected, ranks=layout.ranks, packing=packing)
    own = by_rank[layout.rank] or [[] for _ in range(packing.count_multiple)]
    length = longest_micro_batch(lengths, by_rank, packing) if layout.equal_lengths else 0
    return Pass([lay_out(lengths, indices, packing, length) for indices in own], backward)


def lay_out(
    lengths: Sequence[int], indices: Sequence[int], packing: Packing, least: int = 0
) -> MicroBatch:
    """Lay the rows `indices` end to end.

    Args:
        lengths: tokens of every row.
        least: fewest tokens of the whole.
    """
    ends = list(accumulate((packing.padded(lengths[index]) for index in indices), initial=0))
    total = packing.total(max(ends[-1], least))
    # The padding of the whole belongs to the last row, so that every token is in some row.
    return MicroBatch(list(indices), [*ends[:-1], total] if indices else [0, total])


def plan_micro_batches(
    lengths: Sequence[int], selected: Sequence[int], *, ranks: int, packing: Packing
) -> list[list[list[int]]]:
    """Rows of each micro-batch of each data-parallel rank: `plan[rank][micro_batch] -> rows`.

    All ranks get equally many micro-batches, and as few as hold all rows; an empty one is a dummy.
    Call it once for the rows that teach the policy and once for the rest, which need no backward
    pass.

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
    sizes = [packing.padded(lengths[index]) for index in order]
    if sizes[0] > packing.room:
        raise ValueError(
            f"a row of {sizes[0]} tokens (padding included) exceeds "
            f"learning.batching.micro_batch_tokens={packing.capacity}; raise it to the longest rollout"
        )
    fewest = -(-sum(sizes) // (packing.room * ranks))
    count = -(-fewest // packing.count_multiple) * packing.count_multiple
    while (bins := _pack(lengths, order, ranks * count, packing)) is None:
        count += packing.count_multiple
    return [[bins[number * ranks + rank] for number in range(count)] for rank in range(ranks)]


def longest_micro_batch(
    lengths: Sequence[int], plan: Sequence[Sequence[Sequence[int]]], packing: Packing
) -> int:
    """Tokens, padding included, of the longest micro-batch of a plan over all ranks."""
    longest = 0
    for micro_batches in plan:
        for indices in micro_batches:
            used = sum(packing.padded(lengths[index]) for index in indices)
            longest = max(longest, packing.total(used))
    return longest


def _pack(
    lengths: Sequence[int], order: Sequence[int], count: int, packing: Packing
) -> list[list[int]] | None:
    """The rows in `count` bins; None where they do not fit.

    Each row goes to the bin of the least cost that has room. The costliest rows come first: they
    are the hardest to place, and small rows even the bins out at the end. Cost is balanced rather
    than length, since ranks wait for each other and attention makes long rows dearer than their
    tokens.
    """
    bins: list[list[int]] = [[] for _ in range(count)]
    used, cost = [0] * count, [0.0] * count
    for index in order:
        size = packing.padded(lengths[index])
        fitting = [number for number in range(count) if used[number] + size <= packing.room]
        if not fitting:
            return None
        best = min(fitting, key=lambda number: (cost[number], number))
        bins[best].append(index)
        used[best] += size
        cost[best] += packing.cost(lengths[index])
    return bins
