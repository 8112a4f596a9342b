"""The backup and the contrast measures, against their definitions."""

import numpy as np
import pytest
from hypothesis import given

from megatron_trace.tree import ROOT, RolloutTree, effective_ratio, leaf_statistics, mixed_probability
from tests.unit.trees import bare_tree, chain, empty_tree, grown_trees


def recursive_backup(tree: RolloutTree, index: int) -> tuple[int, float]:
    """V̂(y) = Σ_c n_c V̂(c) / Σ_c n_c, as the paper writes it."""
    if tree.turns[index].terminal:
        return 1, tree.turns[index].reward
    below = [recursive_backup(tree, child) for child in tree.children()[index]]
    leaves = sum(n for n, _ in below)
    return leaves, sum(n * v for n, v in below) / leaves


@given(grown_trees())
def test_backup_is_the_papers_recursion(tree: RolloutTree):
    count, mean, _ = leaf_statistics(tree)
    for index in range(len(tree.turns)):
        leaves, value = recursive_backup(tree, index)
        assert count[index] == leaves
        assert mean[index] == pytest.approx(value)


@given(grown_trees())
def test_deviation_is_that_of_the_leaf_rewards(tree: RolloutTree):
    _, _, deviation = leaf_statistics(tree)
    rewards = [tree.turns[leaf].reward for leaf in tree.leaves()]
    assert deviation[ROOT] == pytest.approx(np.std(rewards), abs=1e-7)


def test_effective_ratio_counts_trees_with_both_outcomes():
    flipped = bare_tree([1.0, 1.0])
    flipped.graft(1, chain(500, 1, 0.0), "continuation")
    trees = [bare_tree([1.0, 1.0]), bare_tree([0.0, 0.0]), bare_tree([1.0, 0.0]), flipped]
    assert effective_ratio(trees) == 0.5
    assert effective_ratio([]) == 0.0


def test_mixed_probability_is_of_the_bare_rollouts():
    tree = empty_tree(prediction=0.3)
    for start in (100, 200):
        tree.graft(ROOT, chain(start, 2, 0.0), "bare")
    tree.graft(1, chain(500, 1, 0.0), "continuation")
    assert mixed_probability(tree) == pytest.approx(2 * 0.3 * 0.7)
