"""Every token of a tree is computed once, and each row finds its whole path."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.config import Pack
from megatron_trace.learning.rows import Row, rows_from_trees
from megatron_trace.learning.runs import Run, paths, trees_of
from megatron_trace.tree import RolloutTree
from tests.unit.learning.some_rows import row_of, token_trees
from tests.unit.trees import grown_trees, renewed_trees


def sequence_of(rows: list[Row], runs: list[Run]) -> tuple[np.ndarray, list[int]]:
    """The tokens of all runs end to end, and where each run begins."""
    parts = [rows[run.row].tokens[run.shared :] for run in runs]
    starts = np.cumsum([0, *map(len, parts)])
    return np.concatenate([np.zeros(0, int), *parts]), starts.tolist()


def prefixes(labels: list[list[int]]) -> set[tuple[int, ...]]:
    return {tuple(row[: end + 1]) for row in labels for end in range(len(row))}


@given(token_trees())
def test_rows_that_begin_alike_share_their_beginning(rows: list[Row]) -> None:
    trees = trees_of(rows, range(len(rows)), Pack.tree, merge=True)
    assert sorted(run.row for tree in trees for run in tree) == list(range(len(rows)))
    for tree in trees:
        assert len({rows[run.row].tree for run in tree}) == 1
        tokens, starts = sequence_of(rows, tree)
        different = prefixes([rows[run.row].tokens.tolist() for run in tree])
        assert len(tokens) == len(different), "each prefix is computed once"
        found = paths(starts, [run.shared for run in tree])
        for run, path in zip(tree, found, strict=True):
            assert run.length == len(path)
            np.testing.assert_array_equal(tokens[path], rows[run.row].tokens)


@given(st.lists(grown_trees(), min_size=1, max_size=3))
def test_without_merging_rows_share_the_turns_of_their_tree(trees: list[RolloutTree]) -> None:
    rows = rows_from_trees(trees)
    found = trees_of(rows, range(len(rows)), Pack.tree, merge=False)
    for tree, runs in zip(trees, found, strict=True):
        turns = [len(turn.action_ids) + len(turn.observation_ids) for turn in tree.turns]
        reached = {turn for leaf in tree.leaves() for turn in tree.path(leaf)}
        assert sum(run.tokens for run in runs) == sum(turns[turn] for turn in reached)
        tokens, starts = sequence_of(rows, runs)
        for run, path in zip(runs, paths(starts, [run.shared for run in runs]), strict=True):
            np.testing.assert_array_equal(tokens[path], rows[run.row].tokens)


@pytest.mark.parametrize("merge", [True, False])
@given(trees=st.lists(renewed_trees(), min_size=1, max_size=3))
def test_rows_of_several_histories_are_packed_too(trees: list[RolloutTree], merge: bool) -> None:
    rows = rows_from_trees(trees)
    for runs in trees_of(rows, range(len(rows)), Pack.tree, merge=merge):
        tokens, starts = sequence_of(rows, runs)
        for run, path in zip(runs, paths(starts, [run.shared for run in runs]), strict=True):
            np.testing.assert_array_equal(tokens[path], rows[run.row].tokens)


def test_packed_as_rows_nothing_is_shared() -> None:
    rows = [row_of([1, 2, 3]), row_of([1, 2, 4])]
    assert trees_of(rows, [1, 0], Pack.rows, merge=True) == [[Run(1, 3, 0)], [Run(0, 3, 0)]]


@pytest.mark.parametrize("merge", [True, False])
def test_equal_rows_of_two_trees_share_nothing(merge: bool) -> None:
    rows = [row_of([1, 2], tree=0), row_of([1, 2], tree=1)]
    trees = trees_of(rows, range(2), Pack.tree, merge=merge)
    assert trees == [[Run(0, 2, 0)], [Run(1, 2, 0)]]


def test_the_drawing() -> None:
    p, q, a, b, c, d, e, f, g, h = range(10)
    rows = [row_of(tokens) for tokens in ([p, q, f, g, h], [p, q, a, b, c], [p, q, f])]
    rows.append(row_of([p, q, a, d, e]))
    (runs,) = trees_of(rows, range(4), Pack.tree, merge=True)
    assert [(run.row, run.shared) for run in runs] == [(1, 0), (3, 3), (2, 2), (0, 3)]
    tokens, starts = sequence_of(rows, runs)
    assert tokens.tolist() == [p, q, a, b, c, d, e, f, g, h]
    found = paths(starts, [run.shared for run in runs])
    assert [path.tolist() for path in found] == [
        [0, 1, 2, 3, 4],
        [0, 1, 2, 5, 6],
        [0, 1, 7],
        [0, 1, 7, 8, 9],
    ]
