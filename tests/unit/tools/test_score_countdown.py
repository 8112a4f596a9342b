"""A lost game of Countdown is told from an open one, and predictions are compared with that."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from megatron_trace.config import EnvironmentConfig
from megatron_trace.envs import make_environments
from megatron_trace.tree import ROOT, RolloutTree, Turn, save_trees

TASK = {"id": "t", "numbers": [3, 7, 8], "target": 59}
WON = ["<op> 7 * 8 </op>", "<op> 56 + 3 </op>"]
ERRED = ["<op> 7 * 8 </op>", "<op> 56 - 3 </op>"]
LOST = ["<op> 7 + 8 </op>", "<op> 15 * 3 </op>"]


@pytest.fixture(scope="module")
def tool(load_tool: Any) -> ModuleType:
    return load_tool("score_countdown")


def played(actions: list[str], predictions: list[float], max_turns: int = 5) -> list[Turn]:
    """The turns of a game."""
    options = {"countdown": {"instruction": ""}}
    game = make_environments(EnvironmentConfig("countdown", max_turns, options))()
    game.reset(TASK)
    turns = []
    for action, prediction in zip(actions, [*predictions, None], strict=True):
        result: Any = game.step(action)
        state = None if result.done else game.snapshot()
        turns.append(
            Turn(-1, [1], [0.0], [0], [2], prediction, result.done, result.reward, state=state)
        )
    return turns


def tree_of(*rollouts: list[Turn]) -> RolloutTree:
    tree = RolloutTree.from_prompt(TASK, [1], prediction=0.5, state={"turns": 0})
    for turns in rollouts:
        tree.graft(ROOT, turns)
    return tree


def test_a_prefix_is_open_or_lost_and_has_the_outcome_of_its_rollout(tool: ModuleType) -> None:
    tree = tree_of(played(WON, [0.9]), played(ERRED, [0.7]), played(LOST, [0.2]))
    found = tool.prefixes_of({4: [tree]}, max_turns=5)
    assert found.step.tolist() == [4] * 3 and found.left.tolist() == [2] * 3
    assert found.open.tolist() == [1, 1, 0] and found.success.tolist() == [1, 0, 0]
    assert found.prediction.tolist() == [0.9, 0.7, 0.2]
    values = tool.figures(found)
    assert values["of them lost"] == pytest.approx(1 / 3)
    assert values["mean prediction at lost prefixes (0 is right)"] == 0.2
    assert values["mean prediction at open prefixes"] == pytest.approx(0.8)
    assert values["mean outcome at open prefixes"] == 0.5
    assert values["AUC: open predicted above lost"] == 1.0
    assert values["the same, of the solver's 0 or 1"] == 0.75
    assert values["Brier score at lost prefixes"] == pytest.approx(0.04)
    assert values["Brier score at all, against outcomes"] == pytest.approx(
        (0.1**2 + 0.7**2 + 0.2**2) / 3
    )


def test_a_game_without_enough_turns_is_lost(tool: ModuleType) -> None:
    illegal = "<op> 8 / 3 </op>"
    tree = tree_of(played([illegal, *WON], [0.4, 0.5], max_turns=3))
    assert tool.prefixes_of({1: [tree]}, max_turns=3).open.tolist() == [1, 1]
    assert tool.prefixes_of({1: [tree]}, max_turns=2).open.tolist() == [0, 0]


def test_what_cannot_be_measured_is_not_a_number(tool: ModuleType) -> None:
    values = tool.figures(tool.prefixes_of({1: [tree_of(played(LOST, [0.2]))]}, 5))
    assert np.isnan(values["AUC: open predicted above lost"])
    assert np.isnan(values["mean outcome at open prefixes"])


def test_continuations_that_cannot_win_are_counted(tool: ModuleType) -> None:
    tree = tree_of(played(WON, [0.9]), played(LOST, [0.2]))
    tree.graft(1, played(ERRED, [0.7])[1:])
    tree.graft(3, played(LOST, [0.2])[1:])
    assert tool.lost_continuations({1: [tree]}, 5) == [False, True]


def test_steps_come_in_parts_and_the_last_part_by_numbers_left(tool: ModuleType) -> None:
    trees = {step: [tree_of(played(LOST, [0.2]))] for step in (1, 2, 3, 5)}
    parts = tool.parts_of(tool.prefixes_of(trees, 5))
    assert list(parts) == ["steps 1 to 2", "steps 3 to 3", "steps 5 to 5", "of these, 2 left"]
    assert parts["steps 1 to 2"].step.tolist() == [1, 2]
    assert parts["of these, 2 left"].step.tolist() == [5]


def run_folder(folder: Path, environment: str) -> Path:
    (folder / "trees").mkdir()
    (folder / "config.yaml").write_text(f"environment: {{name: {environment}, max_turns: 5}}\n")
    trees = [tree_of(played(WON, [0.9]), played(LOST, [0.2]))]
    save_trees(folder / "trees" / "step_1.jsonl.gz", trees)
    return folder


def test_the_command_shows_a_table(
    tool: ModuleType, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["score_countdown.py", str(run_folder(tmp_path, "countdown"))])
    tool.main()
    shown = capsys.readouterr().out
    assert "steps 1 to 1" in shown and "0.200" in shown
    assert "0 of 0 continuations began at a lost prefix" in shown


def test_runs_of_which_nothing_can_be_said_are_refused(
    tool: ModuleType, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    folder = run_folder(tmp_path, "search_qa")
    monkeypatch.setattr(sys, "argv", ["score_countdown.py", str(folder)])
    with pytest.raises(SystemExit):
        tool.main()
    assert "is a run of search_qa; only countdown has a solver" in capsys.readouterr().err
    (folder / "config.yaml").write_text("environment: {name: countdown}\n")
    (folder / "trees" / "step_1.jsonl.gz").unlink()
    with pytest.raises(SystemExit):
        tool.main()
    assert "holds no prefix with a prediction" in capsys.readouterr().err
