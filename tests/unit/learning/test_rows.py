"""Rows: every token of a tree is there, and learned from once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.config import AdvantageConfig, Backup
from megatron_trace.learning import ESTIMATORS, make_estimator, rows_from_tree
from megatron_trace.learning.rows import COLUMNS
from megatron_trace.tree import ROOT, RolloutTree, effective_ratio, leaf_statistics
from megatron_trace.tree.backup import sampled_statistics
from tests.unit.trees import bare_tree, chain, grown_trees


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


@given(grown_trees(), st.data())
def test_turns_without_tokens_add_nothing(tree: RolloutTree, data: st.DataObject) -> None:
    for turn in tree.turns[1:]:
        if data.draw(st.booleans()):
            turn.action_ids, turn.logprobs, turn.versions, turn.observation_ids = [], [], [], []
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
