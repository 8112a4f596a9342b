"""The belief's baseline, against its formula and its limits."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.config import AdvantageConfig
from megatron_trace.learning.advantages import pcl, rloo
from megatron_trace.learning.advantages.belief import estimate as belief
from megatron_trace.tree import RolloutTree
from tests.unit.trees import bare_tree, chain

SETTINGS = AdvantageConfig()

bare_trees = st.lists(st.sampled_from([0.0, 1.0, 0.25]), min_size=2, max_size=6).map(bare_tree)


def believed(tree: RolloutTree, alpha: float, beta: float) -> RolloutTree:
    return dataclasses.replace(tree, belief=(alpha, beta))


def test_a_rollout_is_compared_with_the_belief_and_the_other_rollouts() -> None:
    tree = believed(bare_tree([1.0, 1.0, 0.0], turns=1), 2.0, 3.0)
    assert belief(tree, SETTINGS) == pytest.approx([0, 1 - 3 / 7, 1 - 3 / 7, -4 / 7])


def test_a_tree_of_one_outcome_teaches_what_was_not_expected() -> None:
    surprised = believed(bare_tree([1.0, 1.0], turns=1), 0.5, 1.5)
    expected = believed(bare_tree([1.0, 1.0], turns=1), 9.5, 0.5)
    assert belief(surprised, SETTINGS)[1:] == pytest.approx([0.5, 0.5])
    assert belief(expected, SETTINGS)[1:] == pytest.approx([0.5 / 11] * 2)


def test_a_continuation_is_in_nobodys_baseline() -> None:
    tree = believed(bare_tree([1.0, 1.0]), 1.0, 1.0)
    tree.graft(1, chain(500, 1, 0.0))
    # Turn 1 is shared by a bare rollout and the continuation, which is turn 5.
    bare, continuation = 1 - 2 / 3, 0 - 3 / 4
    shared = (bare + continuation) / 2
    expected = [0, shared, bare, bare, bare, continuation]
    assert belief(tree, SETTINGS) == pytest.approx(expected)


@given(bare_trees)
def test_without_a_belief_it_is_rloo(tree: RolloutTree) -> None:
    expected = rloo.estimate(tree, SETTINGS)
    found = belief(believed(tree, 1e-12, 1e-12), SETTINGS)
    np.testing.assert_allclose(found, expected, atol=1e-9)


@given(bare_trees)
def test_with_a_sure_belief_it_is_pcl(tree: RolloutTree) -> None:
    prediction = tree.turns[0].prediction
    assert prediction is not None
    sure = believed(tree, 1e12 * prediction, 1e12 * (1 - prediction))
    np.testing.assert_allclose(belief(sure, SETTINGS), pcl.estimate(tree, SETTINGS), atol=1e-9)


def test_a_tree_that_no_allocator_planned_has_an_open_belief() -> None:
    assert belief(bare_tree([1.0], turns=1), SETTINGS) == pytest.approx([0.0, 0.5])
