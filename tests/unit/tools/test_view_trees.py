import sys
from xml.etree import ElementTree

import pytest
from rich.console import Console

from megatron_trace.tree import RolloutTree, Turn, save_trees


def decode(ids: list[int]) -> str:
    return "".join(map(chr, ids))


def turn(action: str, **facts) -> Turn:
    ids = [ord(char) for char in action]
    return Turn(-1, ids, [0.0] * len(ids), [1] * len(ids), [], **facts)


@pytest.fixture
def run_dir(tmp_path):
    """A run of two steps with one tree each."""
    for step in (1, 2):
        task = {"id": f"task/{step}", "question": f"Question [bold]{step}", "answers": ["Paris"]}
        tree = RolloutTree.from_prompt(task, [65], prediction=0.5, state={})
        search = turn("<search> Lyon </search>", prediction=0.9, state={})
        tree.graft(0, [search, turn("<answer> Graz </answer>", terminal=True)])
        tree.graft(1, [turn("<answer> Paris </answer>", terminal=True, reward=1.0)])
        save_trees(tmp_path / "trees" / f"step_{step:05d}.jsonl.gz", [tree])
    return tmp_path


@pytest.fixture
def view(load_tool, monkeypatch, capsys):
    """Runs the tool on a command line and returns what it prints."""
    tool = load_tool("view_trees")
    monkeypatch.setattr(tool, "decoder", lambda *_: decode)
    monkeypatch.setattr(tool, "Console", lambda: Console(width=160))

    def view(*arguments) -> str:
        monkeypatch.setattr(sys, "argv", ["view_trees.py", *map(str, arguments)])
        tool.main()
        return capsys.readouterr().out

    return view


def test_without_a_task_the_last_step_is_listed(view, run_dir) -> None:
    printed = view(run_dir)
    assert "task/2" in printed and "Question [bold]2" in printed and "continued" in printed
    assert "task/1" not in printed


def test_a_narrow_terminal_has_a_line_for_each_tree_and_its_whole_id(
    view, run_dir, load_tool, monkeypatch
) -> None:
    monkeypatch.setattr(load_tool("view_trees"), "Console", lambda: Console(width=80))
    task = {"id": "geo_hop/broad/12/00042", "question": "What is the next city north " * 9}
    trees = [RolloutTree.from_prompt(task, [65], prediction=0.5, state={})] * 2
    for tree in trees:
        tree.graft(0, [turn("<answer> Graz </answer>", terminal=True)])
    save_trees(run_dir / "trees" / "step_00003.jsonl.gz", trees)
    lines = view(run_dir).splitlines()
    assert len(lines) == 3
    assert all(line.strip().startswith("geo_hop/broad/12/00042 ") for line in lines[1:])


def test_a_tree_shows_its_turns_with_success_and_prediction(view, run_dir) -> None:
    lines = view(run_dir, "--step", 1, "--task", "task/1").splitlines()
    assert any("search Lyon  0.50  predicted 0.90" in line for line in lines)
    assert any("» answer Paris  1.00" in line for line in lines)
    assert any("answer Graz  0.00" in line and "»" not in line for line in lines)


@pytest.mark.parametrize(("setting", "searches"), [("", 2), ("allocation: {merge: true}", 1)])
def test_equal_histories_are_one_turn_where_the_run_takes_them_for_one(
    view, run_dir, setting, searches
) -> None:
    tree = RolloutTree.from_prompt({"id": "twice"}, [65], prediction=0.5, state={})
    for answer in ("Graz", "Paris"):
        end = turn(f"<answer> {answer} </answer>", terminal=True)
        tree.graft(0, [turn("<search> Lyon </search>", state={}), end])
    save_trees(run_dir / "trees" / "step_00003.jsonl.gz", [tree])
    (run_dir / "config.yaml").write_text(setting)
    assert view(run_dir, "--task", "twice").count("search Lyon") == searches


def test_a_tree_can_be_drawn(view, run_dir) -> None:
    view(run_dir, "--task", "task/2", "--svg", run_dir / "tree.svg")
    assert ElementTree.parse(run_dir / "tree.svg").getroot().tag.endswith("svg")


def test_what_is_not_there_is_named(view, run_dir) -> None:
    with pytest.raises(SystemExit, match=r"no trees of step 7; it has 1, 2"):
        view(run_dir, "--step", 7)
    with pytest.raises(SystemExit, match="no tree of task 'x'"):
        view(run_dir, "--task", "x")
