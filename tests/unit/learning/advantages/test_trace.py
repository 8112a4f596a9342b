"""TRACE: what each turn is credited with by the contrasts above it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.config import AdvantageConfig, Backup
from megatron_trace.learning.advantages.trace import estimate as trace
from megatron_trace.tree import ROOT
from tests.unit.trees import bare_tree, chain, empty_tree


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=8))
def test_on_bare_rollouts_it_is_grpo(rewards) -> None:
    tree = bare_tree(rewards, turns=2)
    grpo = (np.array(rewards) - np.mean(rewards)) / (np.std(rewards) + 1e-6)
    expected = [0.0, *np.repeat(grpo, 2)]
    np.testing.assert_allclose(trace(tree, AdvantageConfig()), expected, atol=1e-9)


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=8))
def test_without_the_deviation_it_is_dr_grpo(rewards) -> None:
    advantages = trace(bare_tree(rewards, turns=2), AdvantageConfig(std=False))
    expected = [0.0, *np.repeat(np.array(rewards) - np.mean(rewards), 2)]
    np.testing.assert_allclose(advantages, expected, atol=1e-9)


def test_a_contrast_credits_only_what_comes_after_it() -> None:
    tree = empty_tree()
    tree.graft(ROOT, chain(100, 3, 1.0))  # turns 1, 2, 3
    tree.graft(2, chain(500, 1, 0.0))  # turn 4
    advantages = trace(tree, AdvantageConfig())
    # Turns 1 and 2 are shared by the success and the failure; nothing above them branches.
    assert list(advantages[:3]) == [0.0, 0.0, 0.0]
    assert advantages[3] == pytest.approx(1.0, abs=1e-5)
    assert advantages[4] == pytest.approx(-1.0, abs=1e-5)


def test_two_contrasts_above_a_turn_are_averaged() -> None:
    tree = empty_tree()
    tree.graft(ROOT, chain(100, 2, 1.0))  # 1, 2
    tree.graft(ROOT, chain(200, 2, 0.0))  # 3, 4
    tree.graft(1, chain(500, 1, 0.0))  # 5
    advantages = trace(tree, AdvantageConfig())
    root_mean, root_deviation = 1 / 3, np.std([1, 0, 0])
    assert advantages[1] == pytest.approx((0.5 - root_mean) / root_deviation, abs=1e-5)
    assert advantages[2] == pytest.approx(
        ((1 - root_mean) / root_deviation + (1 - 0.5) / 0.5) / 2, abs=1e-5
    )
    assert advantages[5] == pytest.approx(
        ((0 - root_mean) / root_deviation + (0 - 0.5) / 0.5) / 2, abs=1e-5
    )


def test_a_history_where_nothing_branches_is_no_contrast() -> None:
    tree = empty_tree()
    tree.graft(ROOT, chain(100, 3, 1.0))  # 1, 2, 3
    tree.graft(ROOT, chain(200, 1, 0.0))  # 4
    tree.graft(2, chain(500, 1, 0.0))  # 5
    # Turn 1 has the same leaves as turn 2 below it; comparing the two would halve the credit of
    # turn 2.
    assert trace(tree, AdvantageConfig())[2] == pytest.approx(
        (0.5 - 1 / 3) / np.std([1, 0, 0]), abs=1e-5
    )


def test_with_the_unbiased_backup_the_continuations_are_the_baseline() -> None:
    tree = empty_tree()
    tree.graft(ROOT, chain(100, 2, 1.0))  # 1, 2
    tree.graft(ROOT, chain(200, 2, 0.0))  # 3, 4
    tree.graft(3, chain(500, 1, 1.0))  # 5
    tree.graft(3, chain(600, 1, 0.0))  # 6
    advantages = trace(tree, AdvantageConfig(backup=Backup.unbiased))
    # V̂: the root's bare rollouts 1/2; turn 3's continuations 1/2, compared with a third outcome,
    # that of turn 4.
    at_root, at_prefix = np.std([1, 0]), np.std([0, 1, 0])
    assert advantages[1] == advantages[2] == pytest.approx(0.5 / at_root, abs=1e-5)
    assert advantages[3] == pytest.approx((0.5 - 0.5) / at_root, abs=1e-5)
    for turn, reward in ((4, 0.0), (5, 1.0), (6, 0.0)):
        expected = ((reward - 0.5) / at_root + (reward - 0.5) / at_prefix) / 2
        assert advantages[turn] == pytest.approx(expected, abs=1e-5)


def test_one_continuation_that_flips_the_outcome_is_a_contrast_to_both_backups() -> None:
    tree = bare_tree([0.0])
    tree.graft(1, chain(500, 1, 1.0))  # 3
    assert list(trace(tree, AdvantageConfig())) == pytest.approx([0, 0, -1, 1], abs=1e-5)
    unbiased = trace(tree, AdvantageConfig(backup=Backup.unbiased))
    assert list(unbiased) == pytest.approx([0, 0, -2, 0], abs=1e-5)
