"""Which tokens of a step's rows are computed: each token of a tree once.

The rows of a tree are its root-to-leaf paths, so they begin alike. Sort them, and each row shares
with the row before it the longest beginning that it shares with any earlier row. Only what follows
has to be computed. That is the row's *run*:

    row   its path        shares    its run
    0     p q a b c       0         p q a b c
    1     p q a d e       3               d e
    2     p q f           2             f
    3     p q f g h       3               g h

    the packed tree:  p q a b c | d e | f | g h

A token's position is its depth in its path, 0 for p and 3 for d. A token attends to its path up to
itself, and to nothing else: e to p q a d e. The path of a row's tokens in the packed tree is that
of the row before, up to where they part, and then the row's own run (`paths`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from megatron_trace.config import Pack
from megatron_trace.learning.rows import Row


@dataclass(frozen=True)
class Run:
    """What is computed of a row that comes after another.

    Attributes:
        row: number of the row in the caller's list.
        length: tokens of the row.
        shared: tokens with which the row before begins as well; 0 for a first row.
    """

    row: int
    length: int
    shared: int

    @property
    def tokens(self) -> int:
        """Tokens of the run; 0 where an earlier row begins with all of the row."""
        return self.length - self.shared


def trees_of(
    rows: Sequence[Row], selected: Sequence[int], pack: Pack, *, merge: bool
) -> list[list[Run]]:
    """The runs of the rows `selected`, tree by tree. Packed as rows, every row is a tree.

    Args:
        merge: rows share tokens that are equal; else only turns of the tree that both contain.
    """
    trees: dict[int, list[int]] = {}
    for index in selected:
        tree = rows[index].tree if pack is Pack.tree else index
        trees.setdefault(tree, []).append(index)
    return [_runs(rows, tree, merge) for tree in trees.values()]


def _runs(rows: Sequence[Row], tree: Sequence[int], merge: bool) -> list[Run]:
    def labels(index: int) -> NDArray[np.int64]:
        return rows[index].tokens if merge else rows[index].turn

    # Big-endian bytes compare as the numbers do, from the first on.
    order = sorted(tree, key=lambda index: labels(index).astype(">u4").tobytes())
    runs = [Run(order[0], len(rows[order[0]].tokens), 0)]
    for before, index in pairwise(order):
        shared = _common_beginning(labels(before), labels(index))
        runs.append(Run(index, len(rows[index].tokens), shared))
    return runs


def _common_beginning(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    length = min(len(one), len(other))
    differ = one[:length] != other[:length]
    return int(differ.argmax()) if differ.any() else length


def paths(starts: Sequence[int], shared: Sequence[int]) -> list[NDArray[np.int64]]:
    """Where the tokens of each row's path lie in a sequence of runs, from the root on.

    Args:
        starts: where each run begins, and the end of the last one, [b + 1].
        shared: `Run.shared` of each, [b].

    Returns:
        for each of the b rows indices [shared + tokens of its run].
    """
    result: list[NDArray[np.int64]] = []
    before = np.zeros(0, dtype=np.int64)
    for (start, end), length in zip(pairwise(starts), shared, strict=True):
        before = np.concatenate([before[:length], np.arange(start, end)])
        result.append(before)
    return result
