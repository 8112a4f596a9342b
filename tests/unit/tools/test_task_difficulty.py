"""Tasks that never, always or sometimes succeed, counted by a field."""

import sys

import pytest

from megatron_trace.tree import RolloutTree, Turn, save_trees


def tree_of(hops: int, rewards: list[float]) -> RolloutTree:
    tree = RolloutTree.from_prompt({"id": "t", "hops": hops}, [1], prediction=0.5, state={})
    for reward in rewards:
        tree.graft(0, [Turn(0, [2], [0.0], [1], [], terminal=True, reward=reward)])
    return tree


@pytest.fixture
def tool(load_tool):
    return load_tool("task_difficulty")


def test_shares_of_never_always_and_mixed_trees(tool) -> None:
    trees = [tree_of(2, [0, 0]), tree_of(2, [1, 1]), tree_of(10, [0, 1]), tree_of(10, [0, 0])]
    by_hops = tool.rewards_by(trees, "hops")
    assert list(by_hops) == ["2", "10", "all"]
    assert tool.shares(by_hops["2"]) == (0.5, 0.5, 0.5, 0.0)
    assert tool.shares(by_hops["10"]) == (0.25, 0.5, 0.0, 0.5)
    assert tool.shares(by_hops["all"]) == (0.375, 0.5, 0.25, 0.25)


def test_only_the_last_steps_are_read_where_it_is_asked_for(
    tool, tmp_path, monkeypatch, capsys
) -> None:
    for step, rewards in enumerate(([0.0, 0.0], [1.0, 1.0]), 1):
        save_trees(tmp_path / "trees" / f"step_{step:05d}.jsonl.gz", [tree_of(3, rewards)])
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path), "--by", "hops", "--last", "1"])
    tool.main()
    assert "1.000" in capsys.readouterr().out.splitlines()[3]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "holds no trees"), (["--by", "colour"], "--by colour: not every task has this field")],
)
def test_a_run_without_trees_or_a_field_is_one_line(
    tool, tmp_path, monkeypatch, capsys, arguments, said
) -> None:
    if arguments:
        save_trees(tmp_path / "trees" / "step_00001.jsonl.gz", [tree_of(3, [1.0])])
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path), *(arguments or ["--by", "hops"])])
    with pytest.raises(SystemExit):
        tool.main()
    assert said in capsys.readouterr().err
