"""Tree-aware advantages: what each turn is credited with."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.learning import tree_advantages
from megatron_trace.tree import ROOT
from tests.unit.trees import bare_tree, chain, empty_tree, grown_trees


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=8))
def test_on_bare_rollouts_it_is_grpo(rewards):
    tree = bare_tree(rewards, turns=2)
    grpo = (np.array(rewards) - np.mean(rewards)) / (np.std(rewards) + 1e-6)
    expected = [0.0, *np.repeat(grpo, 2)]
    np.testing.assert_allclose(tree_advantages(tree), expected, atol=1e-9)


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=8))
def test_without_the_deviation_it_is_dr_grpo(rewards):
    advantages = tree_advantages(bare_tree(rewards, turns=2), std=False)
    expected = [0.0, *np.repeat(np.array(rewards) - np.mean(rewards), 2)]
    np.testing.assert_allclose(advantages, expected, atol=1e-9)


def test_a_contrast_credits_only_what_comes_after_it():
    tree = empty_tree()
    tree.graft(ROOT, chain(100, 3, 1.0), "bare")  # turns 1, 2, 3
    tree.graft(2, chain(500, 1, 0.0), "continuation")  # turn 4
    advantages = tree_advantages(tree)
    # Turns 1 and 2 are shared by the success and the failure; nothing above them branches.
    assert list(advantages[:3]) == [0.0, 0.0, 0.0]
    assert advantages[3] == pytest.approx(1.0, abs=1e-5)
    assert advantages[4] == pytest.approx(-1.0, abs=1e-5)


def test_two_contrasts_above_a_turn_are_averaged():
    tree = empty_tree()
    tree.graft(ROOT, chain(100, 2, 1.0), "bare")  # 1, 2
    tree.graft(ROOT, chain(200, 2, 0.0), "bare")  # 3, 4
    tree.graft(1, chain(500, 1, 0.0), "continuation")  # 5
    advantages = tree_advantages(tree)
    root_mean, root_deviation = 1 / 3, np.std([1, 0, 0])
    assert advantages[1] == pytest.approx((0.5 - root_mean) / root_deviation, abs=1e-5)
    assert advantages[2] == pytest.approx(((1 - root_mean) / root_deviation + (1 - 0.5) / 0.5) / 2, abs=1e-5)
    assert advantages[5] == pytest.approx(((0 - root_mean) / root_deviation + (0 - 0.5) / 0.5) / 2, abs=1e-5)


def test_a_history_where_nothing_branches_is_no_contrast():
    tree = empty_tree()
    tree.graft(ROOT, chain(100, 3, 1.0), "bare")  # 1, 2, 3
    tree.graft(ROOT, chain(200, 1, 0.0), "bare")  # 4
    tree.graft(2, chain(500, 1, 0.0), "continuation")  # 5
    # Turn 1 has the same leaves as turn 2 below it; comparing the two would halve the credit of turn 2.
    assert tree_advantages(tree)[2] == pytest.approx((0.5 - 1 / 3) / np.std([1, 0, 0]), abs=1e-5)


@given(grown_trees())
def test_a_tree_of_one_outcome_teaches_nothing(tree):
    for turn in tree.turns:
        turn.reward = 1.0 if turn.terminal else 0.0
    assert not np.any(tree_advantages(tree))
