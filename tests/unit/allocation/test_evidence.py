"""Rewards by their distance from an anchor."""

import numpy as np
from hypothesis import given

from megatron_trace.allocation.evidence import FARTHEST, counts, distances, paths, weights
from megatron_trace.tree import ROOT
from tests.unit.trees import bare_tree, chain, grown_trees


def distance_of(tree, anchor):
    """ℓ of every rollout to `anchor`, one after another."""
    return distances(paths(tree), tree.path(anchor))[:, -1].tolist()


def test_rollouts_sampled_through_an_anchor_are_its_outcomes() -> None:
    tree = bare_tree([1.0, 0.0], turns=3)  # turns 1, 2, 3 and 4, 5, 6
    tree.graft(1, chain(900, 2, 0.0))
    # Its own rollout, the other bare one that parted at the root, and the continuation from it.
    assert distance_of(tree, 1) == [0, 1, 0]
    # One turn further down, the continuation parted one turn above.
    assert distance_of(tree, 2) == [0, 2, 1]
    # A continuation says less about the root than a bare rollout: its anchor was picked.
    assert distance_of(tree, ROOT) == [0, 0, 1]


def test_the_way_to_a_continuation_of_another_branch_goes_up_and_down() -> None:
    tree = bare_tree([1.0, 0.0], turns=3)
    tree.graft(5, chain(900, 1, 0.0))
    assert distance_of(tree, 2) == [0, 2, 2 + 2]


@given(grown_trees())
def test_distances_are_those_of_the_definition(tree) -> None:
    found = paths(tree)
    for anchor in range(len(tree.turns)):
        path = tree.path(anchor)
        for number, rollout in enumerate(tree.rollouts):
            sampled_from = tree.path(rollout.anchor)
            shared = len(set(path) & set(found.turns[number]))
            up = len(path) - shared
            down = len(set(sampled_from) - set(path))
            expected = min(up + down, FARTHEST)
            assert distances(found, path)[number, -1] == expected


@given(grown_trees())
def test_every_reward_is_counted_once(tree) -> None:
    found = paths(tree)
    for anchor in tree.prefixes():
        table = counts(distances(found, tree.path(anchor))[:, -1], found.reward)
        assert np.isclose(table.sum(), len(tree.rollouts))
        assert np.isclose(table[0].sum(), found.reward.sum())


def test_weights_fall_with_distance() -> None:
    assert weights(0.5)[:3].tolist() == [1.0, 0.5, 0.25]
