"""Long rollouts are worth less to advantages, and to nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from megatron_trace.config import AdvantageConfig
from megatron_trace.learning import rows_from_tree, rows_from_trees
from megatron_trace.learning.overlong import overlong_penalty, shape_rewards
from megatron_trace.tree import ROOT, RolloutTree, effective_ratio
from tests.unit.trees import bare_tree, chain, empty_tree, grown_trees

SHAPED = AdvantageConfig(overlong_buffer=10, overlong_penalty=0.5)


@pytest.mark.parametrize(
    ("length", "penalty"), [(0, 0.0), (80, 0.0), (85, -0.25), (90, -0.5), (100, -1.0), (120, -1.0)]
)
def test_the_penalty_grows_through_the_buffer(length: int, penalty: float) -> None:
    assert overlong_penalty(length, longest=100, buffer=20) == pytest.approx(penalty)


def test_a_buffer_that_no_rollout_reaches_changes_nothing() -> None:
    tree = bare_tree([1.0, 1.0])
    tree.belief = (0.5, 9.5)
    plain = rows_from_tree(tree, AdvantageConfig(name="belief"))
    shaped = rows_from_tree(tree, replace(SHAPED, name="belief"), longest=1000)
    for one, other in zip(plain, shaped, strict=True):
        np.testing.assert_array_equal(one.advantage, other.advantage)


def test_the_rollout_s_whole_history_counts() -> None:
    tree = empty_tree()  # a prompt of 3 tokens
    tree.graft(ROOT, chain(100, 3, 1.0))  # 4 + 4 + 2 tokens
    tree.graft(1, chain(500, 1, 1.0))  # 4 shared, 2 of its own
    shaped = shape_rewards(tree, longest=14, buffer=4, penalty=0.5)
    assert [shaped.turns[leaf].reward for leaf in tree.leaves()] == [1.0 - 0.5 * 3 / 4, 1.0]


@given(grown_trees())
def test_shaping_leaves_the_tree_as_it_is(tree: RolloutTree) -> None:
    before = [turn.reward for turn in tree.turns]
    ratio = effective_ratio([tree])
    shape_rewards(tree, longest=20, buffer=15, penalty=1.0)
    assert [turn.reward for turn in tree.turns] == before
    assert effective_ratio([tree]) == ratio


@given(grown_trees())
def test_targets_are_those_without_shaping(tree: RolloutTree) -> None:
    for plain, shaped in zip(
        rows_from_tree(tree), rows_from_tree(tree, SHAPED, longest=20), strict=True
    ):
        np.testing.assert_array_equal(plain.target, shaped.target)
        np.testing.assert_array_equal(plain.learn, shaped.learn)


def test_of_two_successes_the_long_one_has_the_lower_advantage() -> None:
    tree = empty_tree()
    tree.graft(ROOT, chain(100, 1, 1.0))  # 5 tokens
    tree.graft(ROOT, chain(200, 3, 1.0))  # 13 tokens
    short, long = rows_from_trees([tree], SHAPED, longest=14)
    assert short.advantage[-1] == pytest.approx(1.0, abs=1e-4)
    assert long.advantage[-1] == pytest.approx(-1.0, abs=1e-4)


def test_without_the_longest_history_shaping_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rollout\.max_history_tokens"):
        rows_from_tree(bare_tree([0.0, 1.0]), SHAPED)
