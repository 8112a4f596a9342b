"""What holds for every advantage estimator, on any tree."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.config import AdvantageConfig
from megatron_trace.learning import ESTIMATORS, make_estimator
from megatron_trace.tree import ROOT, RolloutTree
from tests.unit.trees import bare_tree, empty_tree, grown_trees

every = pytest.mark.parametrize("name", ESTIMATORS.names())
NOT_RELATIVE = {"belief", "gigpo", "pcl"}
group_relative = pytest.mark.parametrize("name", sorted(set(ESTIMATORS.names()) - NOT_RELATIVE))


def advantages_of(name: str, tree: RolloutTree, settings: AdvantageConfig) -> np.ndarray:
    return make_estimator(dataclasses.replace(settings, name=name))(tree)


def with_rewards(tree: RolloutTree, scale: float, shift: float) -> RolloutTree:
    """The tree with every terminal reward r made scale·r + shift."""
    turns = [
        dataclasses.replace(turn, reward=scale * turn.reward + shift) if turn.terminal else turn
        for turn in tree.turns
    ]
    return dataclasses.replace(tree, turns=turns)


@every
@given(tree=grown_trees())
def test_every_turn_has_a_finite_advantage_and_the_root_none(name: str, tree: RolloutTree) -> None:
    advantages = advantages_of(name, tree, AdvantageConfig())
    assert advantages.shape == (len(tree.turns),) and advantages.dtype == np.float64
    assert np.isfinite(advantages).all() and advantages[ROOT] == 0.0


@every
def test_an_empty_tree_has_no_advantages(name: str) -> None:
    assert list(advantages_of(name, empty_tree(), AdvantageConfig())) == [0.0]


@every
@given(tree=grown_trees(), std=st.booleans())
def test_a_tree_is_left_as_it_is(name: str, tree: RolloutTree, std: bool) -> None:
    before = dataclasses.asdict(tree)
    advantages_of(name, tree, AdvantageConfig(std=std))
    assert dataclasses.asdict(tree) == before


@group_relative
@given(tree=grown_trees(), reward=st.sampled_from([0.0, 0.1, 1.0]), std=st.booleans())
def test_without_contrast_there_is_nothing_to_learn(
    name: str, tree: RolloutTree, reward: float, std: bool
) -> None:
    same = with_rewards(tree, 0.0, reward)
    assert not advantages_of(name, same, AdvantageConfig(std=std)).any()


@group_relative
@given(tree=grown_trees(), shift=st.floats(-2, 2), std=st.booleans())
def test_what_all_rewards_have_in_common_does_not_matter(
    name: str, tree: RolloutTree, shift: float, std: bool
) -> None:
    learning = AdvantageConfig(std=std)
    expected = advantages_of(name, tree, learning)
    np.testing.assert_allclose(
        advantages_of(name, with_rewards(tree, 1.0, shift), learning), expected, atol=1e-6
    )


# A belief counts rollouts whose rewards are between 0 and 1.
@pytest.mark.parametrize("name", sorted(set(ESTIMATORS.names()) - {"belief"}))
@given(tree=grown_trees())
def test_without_the_deviation_advantages_grow_with_the_rewards(
    name: str, tree: RolloutTree
) -> None:
    learning = AdvantageConfig(std=False)
    doubled = with_rewards(tree, 2.0, 0.0)
    prediction = tree.turns[ROOT].prediction
    assert prediction is not None
    doubled.turns[ROOT] = dataclasses.replace(tree.turns[ROOT], prediction=2.0 * prediction)
    expected = 2.0 * advantages_of(name, tree, learning)
    np.testing.assert_allclose(advantages_of(name, doubled, learning), expected, atol=1e-9)


@pytest.mark.parametrize("name", ["trace", "grpo", "at2po", "treepo"])
@given(rewards=st.lists(st.sampled_from([0.0, 1.0, 0.25]), min_size=1, max_size=8))
def test_on_bare_rollouts_a_tree_estimator_is_grpo(name: str, rewards: list[float]) -> None:
    advantages = advantages_of(name, bare_tree(rewards, turns=3), AdvantageConfig())
    expected = (np.array(rewards) - np.mean(rewards)) / (np.std(rewards) + 1e-6)
    np.testing.assert_allclose(advantages, [0.0, *np.repeat(expected, 3)], atol=1e-7)
