"""Trees are cut where the cuts compute least."""

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.config import Pack
from megatron_trace.learning.pieces import cut, size
from megatron_trace.learning.rows import Row
from megatron_trace.learning.runs import Run, trees_of
from tests.unit.learning.some_rows import token_trees


def computed(tree: list[Run], edges: tuple[int, ...], limit: int) -> float:
    """Tokens computed where the tree is cut before the rows `edges`; infinite where a piece of
    several rows is too large.
    """
    total = 0.0
    for begin, end in pairwise((0, *edges, len(tree))):
        piece = tree[begin].length + size(tree[begin + 1 : end])
        if piece > limit and end - begin > 1:
            return float("inf")
        total += piece
    return total


@given(token_trees(), st.integers(1, 40))
def test_no_other_cuts_compute_less(rows: list[Row], limit: int) -> None:
    for tree in trees_of(rows, range(len(rows)), Pack.tree, merge=True):
        pieces = cut(tree, limit)
        assert [run.row for piece in pieces for run in piece] == [run.row for run in tree]
        for piece in pieces:
            assert piece[0].shared == 0, "a piece begins with a whole row"
            assert size(piece) <= limit or len(piece) == 1
        between = range(1, len(tree))
        ways = [edges for count in range(len(tree)) for edges in combinations(between, count)]
        assert sum(map(size, pieces)) == min(computed(tree, edges, limit) for edges in ways)


def test_a_tree_that_fits_stays_whole() -> None:
    tree = [Run(0, 10, 0), Run(1, 12, 9), Run(2, 9, 2)]
    assert cut(tree, size(tree)) == [tree]
