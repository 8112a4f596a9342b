"""Equal histories are one turn, and nothing else changes."""

from hypothesis import given

from megatron_trace.tree import ROOT, RolloutTree, as_sampled, by_histories, leaf_statistics
from tests.unit.trees import alike_trees, chain, empty_tree, grown_trees, turn


@given(alike_trees())
def test_a_turn_keeps_its_history_and_its_outcome(tree: RolloutTree) -> None:
    merged, turn_of, first = by_histories(tree)
    for index, seen in enumerate(tree.turns):
        assert merged.history_ids(turn_of[index]) == tree.history_ids(index)
        assert merged.turns[turn_of[index]].terminal == seen.terminal
    assert [turn_of[index] for index in first] == list(range(len(merged.turns)))
    rewards = [tree.turns[leaf].reward for leaf in tree.leaves()]
    assert [merged.turns[leaf].reward for leaf in merged.leaves()] == rewards
    anchors = [tree.history_ids(rollout.anchor) for rollout in tree.rollouts]
    assert [merged.history_ids(rollout.anchor) for rollout in merged.rollouts] == anchors


@given(alike_trees())
def test_no_two_inner_turns_have_the_same_history(tree: RolloutTree) -> None:
    merged = by_histories(tree).tree
    inner = [index for index, turn in enumerate(merged.turns) if not turn.terminal]
    histories = {tuple(merged.history_ids(index)) for index in inner}
    assert len(histories) == len(inner)
    assert by_histories(merged).tree == merged
    assert all(turn.parent < index for index, turn in enumerate(merged.turns))


@given(grown_trees())
def test_a_tree_without_equal_histories_stays_as_it_is(tree: RolloutTree) -> None:
    assert by_histories(tree).tree == tree
    assert as_sampled(tree).tree is tree
    assert list(by_histories(tree).turn_of) == list(as_sampled(tree).turn_of)


def test_the_tree_itself_is_not_changed() -> None:
    tree = empty_tree()
    tree.graft(ROOT, chain(100, 3, 1.0))
    tree.graft(ROOT, chain(100, 3, 0.0))
    by_histories(tree)
    assert [turn.parent for turn in tree.turns] == [-1, 0, 1, 2, 0, 4, 5]


def test_rollouts_that_begin_alike_have_a_contrast_where_they_part() -> None:
    tree = empty_tree()
    tree.graft(ROOT, [turn(100), turn(110), turn(120, reward=1.0)])
    tree.graft(ROOT, [turn(100), turn(110), turn(130, reward=0.0)])
    tree.graft(ROOT, [turn(200), turn(210, reward=0.0)])
    merged, turn_of, _ = by_histories(tree)
    assert list(turn_of) == [0, 1, 2, 3, 1, 2, 4, 5, 6]
    count, mean, _ = leaf_statistics(merged)
    assert list(count) == [3, 2, 2, 1, 1, 1, 1]
    assert list(mean) == [1 / 3, 0.5, 0.5, 1.0, 0.0, 0.0, 0.0]


def test_equal_actions_with_other_observations_are_other_histories() -> None:
    tree = empty_tree()
    for token in (1, 2):
        first = turn(100)
        first.observation_ids = [token]
        tree.graft(ROOT, [first, turn(110, reward=1.0)])
    assert len(by_histories(tree).tree.turns) == len(tree.turns)


def test_a_leaf_and_an_inner_turn_of_equal_tokens_stay_apart() -> None:
    tree = empty_tree()
    ended, inner = turn(100, reward=1.0), turn(100)
    inner.observation_ids = []
    tree.graft(ROOT, [ended])
    tree.graft(ROOT, [inner, turn(110, reward=0.0)])
    assert by_histories(tree).tree == tree
