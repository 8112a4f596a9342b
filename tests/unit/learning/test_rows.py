"""Rows: every token of a tree is there, and learned from once."""

import numpy as np
from hypothesis import given

from megatron_trace.learning import rows_from_tree, tree_advantages
from megatron_trace.tree import RolloutTree, leaf_statistics
from tests.unit.trees import grown_trees


@given(grown_trees())
def test_a_row_is_the_history_of_its_leaf(tree: RolloutTree):
    rows = rows_from_tree(tree)
    assert [row.tokens.tolist() for row in rows] == [tree.history_ids(leaf) for leaf in tree.leaves()]


@given(grown_trees())
def test_each_sampled_token_and_each_anchor_is_learned_from_once(tree: RolloutTree):
    rows = rows_from_tree(tree)
    assert sum(row.learn.sum() for row in rows) == sum(len(turn.action_ids) for turn in tree.turns)
    assert sum(row.predict.sum() for row in rows) == sum(not turn.terminal for turn in tree.turns)


@given(grown_trees())
def test_what_is_learned_carries_its_turns_numbers(tree: RolloutTree):
    advantages, (_, success, _) = tree_advantages(tree), leaf_statistics(tree)
    for leaf, row in zip(tree.leaves(), rows_from_tree(tree), strict=True):
        start = 0
        for index in tree.path(leaf):
            turn = tree.turns[index]
            sampled = slice(start, start + len(turn.action_ids))
            end = sampled.stop + len(turn.observation_ids)
            if np.any(row.learn[sampled]):
                np.testing.assert_array_equal(row.advantage[sampled], np.float32(advantages[index]))
                np.testing.assert_array_equal(row.sampler_logprob[sampled], np.float32(turn.logprobs))
            assert not np.any(row.learn[sampled.stop : end])
            if row.predict[end - 1]:
                assert row.target[end - 1] == np.float32(success[index])
            start = end
