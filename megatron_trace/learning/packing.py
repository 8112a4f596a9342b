"""Which rows share a micro-batch: trees packed end to end, balanced over ranks by cost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from megatron_trace.config import Pack
from megatron_trace.learning.pieces import cut, size
from megatron_trace.learning.rows import Row
from megatron_trace.learning.runs import Run, trees_of

Plan = list[list[list[int]]]
"""Rows of each micro-batch of each data-parallel rank: `plan[rank][micro_batch]`. All ranks have
equally many micro-batches; an empty one is a dummy.
"""


@dataclass(frozen=True)
class Packing:
    """How rows are laid into micro-batches.

    Attributes:
        capacity: most tokens of a micro-batch, padding included.
        pack, merge: which tokens are computed once, see `runs.trees_of`.
        total_multiple: a micro-batch is padded to a multiple of this many tokens (context and
            sequence parallelism, FP8).
        count_multiple: every rank has a multiple of this many micro-batches (interleaved pipeline).
        attention_scale: tokens of history at which attention costs as much as everything else; a
            token at depth d costs 1 + d / attention_scale.
    """

    capacity: int
    pack: Pack = Pack.tree
    merge: bool = True
    total_multiple: int = 1
    count_multiple: int = 1
    attention_scale: float = float("inf")

    @property
    def room(self) -> int:
        """Most tokens of a micro-batch that is a whole number of `total_multiple`."""
        return self.capacity // self.total_multiple * self.total_multiple

    def total(self, tokens: int) -> int:
        """Tokens that a micro-batch of `tokens` is padded to; at least one multiple."""
        unit = self.total_multiple
        return max(-(-tokens // unit), 1) * unit

    def cost(self, runs: Iterable[Run]) -> float:
        """Computation of runs, in tokens without attention."""
        scale = 2.0 * self.attention_scale
        return sum(run.tokens * (1.0 + (run.length + run.shared) / scale) for run in runs)


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
    """The runs of one micro-batch, and where they lie in its sequence.

    Attributes:
        runs: of b rows; none for a dummy.
        starts: where each run begins, and as the last entry the tokens of the whole, [b + 1]. A
            dummy is one run of padding.
    """

    runs: list[Run]
    starts: list[int]

    @property
    def rows(self) -> list[int]:
        """Numbers of the rows, in the order of the runs."""
        return [run.row for run in self.runs]


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
    trees = trees_of(rows, selected, packing.pack, merge=packing.merge)
    plan = plan_micro_batches(trees, ranks=layout.ranks, packing=packing)
    together = [[_together(rows, indices, packing) for indices in rank] for rank in plan]
    least = 0
    if layout.equal_lengths:
        least = max((size(runs) for rank in together for runs in rank), default=0)
    own = together[layout.rank] or [[] for _ in range(packing.count_multiple)]
    return Pass([lay_out(runs, packing, least) for runs in own], backward)


def _together(rows: Sequence[Row], indices: Sequence[int], packing: Packing) -> list[Run]:
    """The runs of a micro-batch. Two pieces of a tree that meet in it share tokens again."""
    trees = trees_of(rows, indices, packing.pack, merge=packing.merge)
    return [run for tree in trees for run in tree]


def lay_out(runs: Sequence[Run], packing: Packing, least: int = 0) -> MicroBatch:
    """Lay `runs` end to end.

    Args:
        least: fewest tokens of the whole.
    """
    ends = list(accumulate((run.tokens for run in runs), initial=0))
    total = packing.total(max(ends[-1], least))
    # The padding belongs to the last run, so that every token is in some row.
    return MicroBatch(list(runs), [*ends[:-1], total] if runs else [0, total])


def plan_micro_batches(trees: Sequence[Sequence[Run]], *, ranks: int, packing: Packing) -> Plan:
    """Deal trees to the micro-batches of all ranks, as few as hold them.

    A tree stays whole where it can. It is cut where it exceeds the capacity, and where the ranks
    would otherwise wait for the one that has the largest tree. Then smaller and smaller pieces are
    tried, and the plan is taken in which the slowest ranks compute least.

    Call it once for the rows that teach the policy and once for the rest, which need no backward
    pass.

    Args:
        ranks: data-parallel size.

    Raises:
        ValueError: a row alone exceeds the capacity.
    """
    if not trees:
        return [[] for _ in range(ranks)]
    longest = max(run.length for tree in trees for run in tree)
    if longest > packing.room:
        raise ValueError(
            f"a row of {longest} tokens exceeds learning.batching.micro_batch_tokens="
            f"{packing.capacity} ({packing.room} in whole multiples of {packing.total_multiple}); "
            "raise it to the longest rollout"
        )
    ideal = sum(map(packing.cost, trees)) / ranks
    best, fastest = None, float("inf")
    for limit in _limits(trees, longest, ranks, packing):
        pieces = [piece for tree in trees for piece in cut(tree, limit)]
        plan = _deal(pieces, ranks, packing)
        time = _time(plan, packing)
        if time < fastest:
            best, fastest = plan, time
        if fastest <= NEARLY_IDEAL * ideal:
            break
    assert best is not None
    return [[[run.row for piece in batch for run in piece] for batch in rank] for rank in best]


def _limits(
    trees: Sequence[Sequence[Run]], longest: int, ranks: int, packing: Packing
) -> list[int]:
    """Sizes of pieces to try, the largest first."""
    limits = [packing.room]
    largest = min(max(map(size, trees)), packing.room)
    # With one rank a cut only adds tokens. Else halves of the largest tree are tried, quarters, …
    while ranks > 1 and largest > longest:
        largest = max(largest // 2, longest)
        limits.append(largest)
    return limits


NEARLY_IDEAL = 1.02
"""A plan that takes at most this much longer than one that wastes nothing is not improved."""

_Dealt = list[list[list[list[Run]]]]
"""Pieces of each micro-batch of each rank."""


def _deal(pieces: Sequence[list[Run]], ranks: int, packing: Packing) -> _Dealt:
    fewest = -(-sum(map(size, pieces)) // (packing.room * ranks))
    count = -(-fewest // packing.count_multiple) * packing.count_multiple
    order = sorted(pieces, key=packing.cost, reverse=True)
    while (bins := _pack(order, ranks * count, packing)) is None:
        count += packing.count_multiple
    return [[bins[number * ranks + rank] for number in range(count)] for rank in range(ranks)]


def _pack(
    pieces: Sequence[list[Run]], count: int, packing: Packing
) -> list[list[list[Run]]] | None:
    """The pieces in `count` bins; None where they do not fit.

    Each piece goes to the bin of the least cost that has room. The costliest pieces come first:
    they are the hardest to place, and small ones even the bins out at the end. Cost is balanced
    rather than length, since ranks wait for each other and attention makes long rows dearer than
    their tokens.
    """
    bins: list[list[list[Run]]] = [[] for _ in range(count)]
    used, cost = np.zeros(count, dtype=np.int64), np.zeros(count)
    for piece in pieces:
        tokens = size(piece)
        fits = used + tokens <= packing.room
        if not fits.any():
            return None
        best = int(np.where(fits, cost, np.inf).argmin())
        bins[best].append(piece)
        used[best] += tokens
        cost[best] += packing.cost(piece)
    return bins


def _time(plan: _Dealt, packing: Packing) -> float:
    """Time of a plan: at every turn all ranks wait for the one whose micro-batch costs most."""
    costs = [[sum(map(packing.cost, batch)) for batch in rank] for rank in plan]
    return sum(map(max, zip(*costs, strict=True)))
