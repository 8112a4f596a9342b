"""Rows: every token of a tree is there, and learned from once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.config import AdvantageConfig, Backup
from megatron_trace.learning import ESTIMATORS, make_estimator, rows_from_tree, rows_from_trees
from megatron_trace.learning.rows import COLUMNS
from megatron_trace.tree import ROOT, RolloutTree, effective_ratio, leaf_statistics
from megatron_trace.tree.backup import sampled_statistics
from tests.unit.trees import (
    alike_trees,
    bare_tree,
    chain,
    empty_tree,
    grown_trees,
    renewed_trees,
    turn,
)


@given(grown_trees())
def test_a_row_is_the_history_of_its_leaf(tree: RolloutTree) -> None:
    rows = rows_from_tree(tree)
    assert [row.tokens.tolist() for row in rows] == [
        tree.history_ids(leaf) for leaf in tree.leaves()
    ]


@given(grown_trees())
def test_each_sampled_token_and_each_anchor_is_learned_from_once(tree: RolloutTree) -> None:
    rows = rows_from_tree(tree)
    assert sum(row.learn.sum() for row in rows) == sum(len(turn.action_ids) for turn in tree.turns)
    assert sum(row.predict.sum() for row in rows) == sum(not turn.terminal for turn in tree.turns)


@given(renewed_trees())
def test_a_turn_is_learned_after_the_very_history_it_was_sampled_after(tree: RolloutTree) -> None:
    learned, predicted = [], []
    success = leaf_statistics(tree)[1]
    rollouts = [tree.turns[leaf].rollout for leaf in tree.leaves()]
    for row in rows_from_tree(tree):
        assert row.learn.any() or row.predict.any()
        assert row.rollout in rollouts
        for index in np.unique(row.turn[row.learn]):
            places = np.flatnonzero(row.learn & (row.turn == index))
            assert row.tokens[: places[0]].tolist() == tree.history_ids(tree.turns[index].parent)
            assert row.tokens[places].tolist() == tree.turns[index].action_ids
            learned.append(index)
        for place in np.flatnonzero(row.predict):
            index = row.turn[place]
            assert row.tokens[: place + 1].tolist() == tree.history_ids(index)
            assert row.target[place] == np.float32(success[index])
            predicted.append(index)
    assert sorted(learned) == list(range(1, len(tree.turns)))
    assert sorted(predicted) == [n for n, turn in enumerate(tree.turns) if not turn.terminal]


def test_rollouts_are_counted_over_all_trees() -> None:
    renewed = bare_tree([1.0, 0.0], turns=3)
    for one in renewed.turns[1:]:
        if not one.terminal:
            one.new_history = [9, *one.observation_ids]
    rows = rows_from_trees([bare_tree([1.0, 0.0]), renewed])
    assert [row.rollout for row in rows] == [0, 1, 2, 2, 2, 3, 3, 3]


@given(grown_trees(), st.data())
def test_turns_without_tokens_add_nothing(tree: RolloutTree, data: st.DataObject) -> None:
    for index in range(1, len(tree.turns)):
        if data.draw(st.booleans()):
            one = tree.turns[index]
            one.action_ids, one.logprobs, one.versions, one.observation_ids = [], [], [], []
    for leaf, row in zip(tree.leaves(), rows_from_tree(tree), strict=True):
        assert row.tokens.tolist() == tree.history_ids(leaf)
        assert {len(getattr(row, name)) for name in COLUMNS} == {len(row.tokens)}


@pytest.mark.parametrize("name", [None, *ESTIMATORS.names()])
@pytest.mark.parametrize("backup", Backup)
@given(tree=grown_trees())
def test_what_is_learned_carries_its_turns_numbers(
    name: str | None, backup: Backup, tree: RolloutTree
) -> None:
    learning = AdvantageConfig(name=name, backup=backup)
    advantages = make_estimator(AdvantageConfig(name=name or "trace", backup=backup))(tree)
    _, success, _ = (
        leaf_statistics(tree) if backup is Backup.leaf_weighted else sampled_statistics(tree)
    )
    for leaf, row in zip(tree.leaves(), rows_from_tree(tree, learning), strict=True):
        start = 0
        for index in tree.path(leaf):
            turn = tree.turns[index]
            sampled = slice(start, start + len(turn.action_ids))
            end = sampled.stop + len(turn.observation_ids)
            if np.any(row.learn[sampled]):
                np.testing.assert_array_equal(row.advantage[sampled], np.float32(advantages[index]))
                np.testing.assert_array_equal(
                    row.sampler_logprob[sampled], np.float32(turn.logprobs)
                )
            assert not np.any(row.learn[sampled.stop : end])
            if row.predict[end - 1]:
                assert row.target[end - 1] == np.float32(success[index])
            start = end


def test_equal_histories_share_credit_and_target_and_are_learned_from_for_each() -> None:
    tree = empty_tree()
    tree.graft(ROOT, [turn(100), turn(110, reward=1.0)])
    tree.graft(ROOT, [turn(100), turn(120, reward=0.0)])
    tree.graft(ROOT, [turn(200), turn(210, reward=0.0)])
    settings = AdvantageConfig(merge=True, std=False)
    # Both turns of token 100 lead from 1/3 to 1/2. Behind them there is a second contrast.
    leads, wins, loses = 1 / 6, (2 / 3 + 1 / 2) / 2, -(1 / 3 + 1 / 2) / 2
    expected = [0.0, leads, wins, leads, loses, -1 / 3, -1 / 3]
    assert make_estimator(settings)(tree) == pytest.approx(expected)
    rows = rows_from_tree(tree, settings)
    assert [row.target[row.predict].tolist() for row in rows] == [
        pytest.approx([1 / 3, 0.5]),
        [0.5],
        [0.0],
    ]
    for row in rows:
        assert row.learn.sum() == 4


@pytest.mark.parametrize("name", ["grpo", "rloo", "pcl", "belief"])
@given(tree=alike_trees())
def test_a_rollouts_own_credit_is_the_same_in_sum_with_equal_histories_merged(
    name: str, tree: RolloutTree
) -> None:
    """Merging deals the credit of a turn's leaves out evenly over its copies."""
    plain = make_estimator(AdvantageConfig(name=name))(tree)
    merged = make_estimator(AdvantageConfig(name=name, merge=True))(tree)
    for first in {tuple(tree.history_ids(index)) for index in range(1, len(tree.turns))}:
        same = [i for i in range(1, len(tree.turns)) if tuple(tree.history_ids(i)) == first]
        leaves = [sum(same_turn in tree.path(leaf) for leaf in tree.leaves()) for same_turn in same]
        assert merged[same] @ leaves == pytest.approx(plain[same] @ leaves, abs=1e-9)


@given(grown_trees())
def test_a_row_learns_what_its_own_rollout_sampled(tree: RolloutTree) -> None:
    for number, row in enumerate(rows_from_tree(tree)):
        own = [turn.action_ids for turn in tree.turns if turn.rollout == number]
        assert row.tokens[row.learn].tolist() == [token for ids in own for token in ids]


@given(grown_trees())
def test_filtered_trees_without_contrast_teach_the_predictor_alone(tree: RolloutTree) -> None:
    plain, filtered = (
        rows_from_tree(tree),
        rows_from_tree(tree, AdvantageConfig(filter_groups=True)),
    )
    mixed = effective_ratio([tree]) == 1.0
    for before, after in zip(plain, filtered, strict=True):
        assert after.filtered is not mixed and not before.filtered
        assert mixed or not after.advantage.any()
        np.testing.assert_array_equal(after.advantage, before.advantage)
        np.testing.assert_array_equal(after.predict, before.predict)
        np.testing.assert_array_equal(after.target, before.target)


def test_a_filtered_tree_has_no_advantages_of_length_either() -> None:
    tree = bare_tree([1.0, 1.0])
    tree.graft(ROOT, chain(900, 3, 1.0))
    shaped = AdvantageConfig(overlong_buffer=10, filter_groups=True)
    assert not any(row.advantage.any() for row in rows_from_tree(tree, shaped, longest=14))
