"""The backup and the contrast measures, against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.tree import (
    ROOT,
    RolloutTree,
    by_histories,
    effective_ratio,
    leaf_statistics,
    mixed_probability,
    mixed_share,
)
from megatron_trace.tree.backup import sampled_statistics
from tests.unit.trees import alike_trees, bare_tree, chain, empty_tree, grown_trees


def recursive_backup(tree: RolloutTree, index: int) -> tuple[int, float]:
    """V̂(y) = Σ_c n_c V̂(c) / Σ_c n_c, as the paper writes it."""
    if tree.turns[index].terminal:
        return 1, tree.turns[index].reward
    below = [recursive_backup(tree, child) for child in tree.children()[index]]
    leaves = sum(n for n, _ in below)
    return leaves, sum(n * v for n, v in below) / leaves


@given(grown_trees())
def test_backup_is_the_papers_recursion(tree: RolloutTree) -> None:
    count, mean, _ = leaf_statistics(tree)
    for index in range(len(tree.turns)):
        leaves, value = recursive_backup(tree, index)
        assert count[index] == leaves
        assert mean[index] == pytest.approx(value)


@given(grown_trees())
def test_deviation_is_that_of_the_leaf_rewards(tree: RolloutTree) -> None:
    _, _, deviation = leaf_statistics(tree)
    rewards = [tree.turns[leaf].reward for leaf in tree.leaves()]
    assert deviation[ROOT] == pytest.approx(np.std(rewards), abs=1e-7)


def sampled_by_hand(tree: RolloutTree, index: int) -> tuple[list[float], list[float]]:
    """Rewards that V̂ of a turn is the mean of, and those that they are compared with, by the
    definition.
    """
    ends = {tree.turns[leaf].rollout: tree.turns[leaf].reward for leaf in tree.leaves()}
    taken = [
        ends[number] for number, rollout in enumerate(tree.rollouts) if rollout.anchor == index
    ]
    own = []
    for leaf in tree.leaves():
        path = tree.path(leaf)
        anchor = tree.rollouts[tree.turns[leaf].rollout].anchor
        if index in path[path.index(anchor) + 1 :]:
            own.append(tree.turns[leaf].reward)
    return taken or own, taken + own


@given(st.one_of(grown_trees(), alike_trees().map(lambda tree: by_histories(tree).tree)))
def test_sampled_backup_counts_what_was_sampled_from_a_turn(tree: RolloutTree) -> None:
    count, mean, deviation = sampled_statistics(tree)
    for index in range(len(tree.turns)):
        sampled, compared = sampled_by_hand(tree, index)
        assert count[index] == len(sampled)
        assert mean[index] == pytest.approx(np.mean(sampled))
        assert deviation[index] == pytest.approx(np.std(compared), abs=1e-7)


def test_the_outcome_that_got_an_anchor_continued_is_left_out_of_its_success() -> None:
    tree = bare_tree([0.0, 1.0], turns=3)  # turns 1, 2, 3 and 4, 5, 6
    tree.graft(2, chain(500, 2, 1.0))  # 7, 8
    tree.graft(2, chain(600, 1, 1.0))  # 9
    tree.graft(7, chain(700, 1, 0.0))  # 10
    count, mean, deviation = sampled_statistics(tree)
    assert list(mean) == [0.5, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0]
    assert list(count) == [2, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1]
    assert deviation == pytest.approx([0.5, 0, np.std([1, 1, 0]), 0, 0, 0, 0, 0.5, 0, 0, 0])


@given(st.lists(st.sampled_from([0.0, 1.0, 0.25]), min_size=1, max_size=6))
def test_without_continuations_both_backups_agree(rewards: list[float]) -> None:
    tree = bare_tree(rewards, turns=3)
    for sampled, weighted in zip(sampled_statistics(tree), leaf_statistics(tree), strict=True):
        np.testing.assert_allclose(sampled, weighted, atol=1e-12)


def test_nothing_is_known_of_a_root_from_which_nothing_was_sampled() -> None:
    assert [list(values) for values in sampled_statistics(empty_tree())] == [[0], [0.0], [0.0]]


def test_of_continued_anchors_the_sampled_backup_is_unbiased() -> None:
    # An anchor with V = 0.7 is continued once where its own rollout failed: the choice looks at the
    # outcome.
    random = np.random.default_rng(0)
    sampled, weighted = [], []
    for first, second in random.random((4000, 2)) < 0.7:
        if not first:
            tree = bare_tree([0.0])
            tree.graft(1, chain(500, 1, float(second)))
            sampled.append(sampled_statistics(tree)[1][1])
            weighted.append(leaf_statistics(tree)[1][1])
    assert np.mean(sampled) == pytest.approx(0.7, abs=0.04)
    assert np.mean(weighted) == pytest.approx(0.35, abs=0.02)


def test_effective_ratio_counts_trees_with_both_outcomes() -> None:
    flipped = bare_tree([1.0, 1.0])
    flipped.graft(1, chain(500, 1, 0.0))
    trees = [bare_tree([1.0, 1.0]), bare_tree([0.0, 0.0]), bare_tree([1.0, 0.0]), flipped]
    assert effective_ratio(trees) == 0.5
    assert effective_ratio([]) == 0.0


def test_the_mixed_share_counts_rollouts() -> None:
    trees = [bare_tree([1.0, 0.0, 1.0]), bare_tree([0.0])]
    assert mixed_share(trees) == 0.75
    assert mixed_share([]) == 0.0


def test_mixed_probability_is_of_the_bare_rollouts() -> None:
    tree = empty_tree(prediction=0.3)
    for start in (100, 200):
        tree.graft(ROOT, chain(start, 2, 0.0))
    tree.graft(1, chain(500, 1, 0.0))
    assert mixed_probability(tree) == pytest.approx(2 * 0.3 * 0.7)
