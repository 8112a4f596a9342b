"""What a rollout tree promises."""

import dataclasses
import gzip

import pytest
from hypothesis import given

from megatron_trace.files.problems import BadData
from megatron_trace.tree import ROOT, RolloutTree, load_trees, save_trees
from tests.unit.trees import PROMPT, bare_tree, chain, empty_tree, grown_trees, turn


def test_history_is_the_very_ids_along_the_path() -> None:
    tree = empty_tree()
    tree.graft(ROOT, chain(100, 3, 1.0))
    tree.graft(1, chain(500, 1, 0.0))
    assert tree.history_ids(ROOT) == PROMPT
    assert tree.history_ids(2) == [*PROMPT, 100, 101, 102, 103, 110, 111, 112, 113]
    assert tree.history_ids(4) == [*PROMPT, 100, 101, 102, 103, 500, 501]


def test_only_bare_nonterminal_turns_below_the_root_may_be_expanded() -> None:
    tree = bare_tree([1.0, 0.0], turns=3)
    tree.graft(1, chain(500, 2, 0.0))
    assert tree.prefixes() == [1, 2, 4, 5]


@pytest.mark.parametrize("turns", [[], [turn(5)], [turn(5, reward=0.0), turn(6, reward=1.0)]])
def test_a_rollout_that_is_no_chain_to_one_terminal_turn_is_refused(turns) -> None:
    with pytest.raises(ValueError, match="terminal"):
        empty_tree().graft(ROOT, turns)


def test_a_terminal_turn_cannot_be_continued() -> None:
    tree = bare_tree([1.0], turns=1)
    with pytest.raises(ValueError, match="turn 1 is terminal"):
        tree.graft(1, chain(7, 1, 0.0))


@given(grown_trees())
def test_every_rollout_has_one_leaf_and_parents_come_first(tree: RolloutTree) -> None:
    assert len(tree.leaves()) == len(tree.rollouts)
    assert all(turn.parent < index for index, turn in enumerate(tree.turns))


@given(tree=grown_trees())
def test_saved_trees_come_back_the_same(tmp_path_factory, tree: RolloutTree) -> None:
    file = tmp_path_factory.mktemp("trees") / "step_00001.jsonl.gz"
    planned = dataclasses.replace(tree, belief=(0.25, 1.5))
    save_trees(file, [tree, planned])
    assert load_trees(file) == [tree, planned]
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("belief", [[0.5], [1.0, 2.0, 3.0], [0.0, 1.0], 3, "ab"])
def test_saved_trees_with_an_odd_belief_are_refused(tmp_path, belief) -> None:
    save_trees(tmp_path / "a.jsonl.gz", [dataclasses.replace(bare_tree([1.0]), belief=belief)])
    with pytest.raises(BadData, match=r"a\.jsonl\.gz: tree 1 cannot be read"):
        load_trees(tmp_path / "a.jsonl.gz")


@pytest.mark.parametrize("reward", [float("nan"), 100.0, -1.0, None, "1.0"])
def test_saved_trees_with_an_odd_reward_are_refused(tmp_path, reward) -> None:
    tree = bare_tree([1.0, 0.0], turns=1)
    tree.turns[1].reward = reward
    save_trees(tmp_path / "a.jsonl.gz", [bare_tree([1.0], turns=1), tree])
    with pytest.raises(BadData, match=r"a\.jsonl\.gz: tree 2 cannot be read"):
        load_trees(tmp_path / "a.jsonl.gz")


def test_trees_that_are_cut_or_something_else_are_refused_in_one_line(tmp_path) -> None:
    file = tmp_path / "a.jsonl.gz"
    save_trees(file, [bare_tree([1.0, 0.0], turns=2)] * 3)
    whole = file.read_bytes()
    others = [b"{", b"[1]", b"{}", b'{"task": {}, "turns": [3]}', b'{"turns": [{"x": 1}]}', b"\xff"]
    flipped = bytes([*whole[:60], whole[60] ^ 255, *whole[61:]])
    for content in (whole[:-9], whole[:5], b"x" * 9, flipped, *map(gzip.compress, others)):
        file.write_bytes(content)
        with pytest.raises(BadData, match=r"a\.jsonl\.gz: tree \d cannot be read") as error:
            load_trees(file)
        assert "\n" not in str(error.value)
