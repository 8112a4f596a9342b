"""Alignment of a run's steps with the gradient of success, on a bandit whose gradient is known."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from rich.console import Console

from megatron_trace.config import AdvantageConfig
from megatron_trace.learning.rows import Row
from megatron_trace.tree import ROOT, RolloutTree, Turn, save_trees
from tests.unit.trees import bare_tree, chain

GRPO = AdvantageConfig(name="grpo")
KINDS = {"easy": (0, 0.9), "hard": (1, 0.2)}
"""Each kind of task has a parameter of its own, and succeeds with the probability of action 1."""


@pytest.fixture(scope="module")
def tool(load_tool) -> ModuleType:
    return load_tool("score_gradients")


class Bandit:
    """The prompt's token is the kind of the task, the action's is 1 where the rollout succeeds."""

    def gradient(self, rows: list[Row]) -> np.ndarray:
        total, tokens = np.zeros(len(KINDS)), 0
        chance = dict(KINDS.values())
        for row in rows:
            kind, (action,) = int(row.tokens[0]), row.tokens[row.learn]
            total[kind] += row.advantage[row.learn][0] * (action - chance[kind])
            tokens += 1
        return (-total / tokens).astype(np.float32)


def tree_of(kind: str, actions: list[int]) -> RolloutTree:
    number = KINDS[kind][0]
    tree = RolloutTree.from_prompt({"id": "t", "kind": kind}, [number], prediction=0.5, state={})
    for action in actions:
        last = Turn(
            parent=-1,
            action_ids=[action],
            logprobs=[0.0],
            versions=[0],
            observation_ids=[],
            prediction=None,
            terminal=True,
            reward=float(action),
            state=None,
        )
        tree.graft(ROOT, [last])
    return tree


EASY, HARD = [1] * 9 + [0], [1] * 2 + [0] * 8
"""Outcomes just as often as expected. RLOO then gives n / (n − 1) times the gradient p(1 − p)."""

BOTH = np.array([0.5 * 0.09, 0.5 * 0.16]) * 10 / 9


def exact(*kinds: str) -> list[RolloutTree]:
    return [tree_of(kind, {"easy": EASY, "hard": HARD}[kind]) for kind in kinds]


def test_the_reference_is_the_gradient_of_success(tool: ModuleType) -> None:
    found = tool.success_gradient(Bandit(), [exact("easy", "hard")] * 2, GRPO, "kind")
    np.testing.assert_allclose(found.whole, BOTH, rtol=1e-6)
    assert found.square == pytest.approx(BOTH @ BOTH)
    np.testing.assert_allclose(found.parts["easy"], [2 * BOTH[0], 0.0], rtol=1e-6)
    np.testing.assert_allclose(found.parts["hard"], [0.0, 2 * BOTH[1]], rtol=1e-6)


def test_a_task_weighs_as_many_rollouts_as_it_has(tool: ModuleType) -> None:
    trees = [*exact("hard"), tree_of("easy", EASY * 3)]
    found = tool.success_gradient(Bandit(), [trees] * 2, GRPO, None)
    assert found.whole[0] == pytest.approx(0.75 * 0.09 * 30 / 29)
    assert found.whole[1] == pytest.approx(0.25 * 0.16 * 10 / 9)
    assert found.parts == {}


def test_noise_of_one_half_is_not_in_the_square(tool: ModuleType) -> None:
    found = tool.success_gradient(Bandit(), [exact("easy"), exact("hard")], GRPO, None)
    assert found.whole @ found.whole > 0.005
    assert found.square == pytest.approx(0.0, abs=1e-12)


def test_steps_on_the_tasks_that_can_be_learned_are_aligned_better(tool: ModuleType) -> None:
    reference = tool.success_gradient(Bandit(), [exact("easy", "hard")] * 2, GRPO, "kind")
    for kind, (number, _) in KINDS.items():
        seen = tool.projected(Bandit(), [exact(kind)] * 3, GRPO, 100, reference, kind)
        aligned = tool.alignment(seen.along, seen.square, reference.square)
        assert aligned == pytest.approx(BOTH[number] / np.linalg.norm(BOTH))
        other = ({*KINDS} - {kind}).pop()
        assert seen.parts[kind].mean() > 0 and seen.parts[other].mean() == 0


def test_the_error_is_the_spread_of_the_alignment(tool: ModuleType) -> None:
    random = np.random.default_rng(0)
    along, square = random.normal(1, 1, (100, 20)), random.uniform(5, 9, (100, 20))
    pairs = list(zip(along, square, strict=True))
    spread = np.std([tool.alignment(*pair, 4.0) for pair in pairs])
    assert np.mean([tool.jackknife(*pair, 4.0) for pair in pairs]) == pytest.approx(spread, rel=0.2)
    assert np.isnan(tool.jackknife(along[0][:1], square[0][:1], 4.0))


def test_tables_name_runs_and_values(tool: ModuleType) -> None:
    reference = tool.Reference(np.array([1.0]), 1.0, {})
    runs = {
        "uniform": tool.Projections(
            np.array([0.2, 0.6]), np.full(2, 4.0), {"2": np.array([0.2, 0.4])}
        ),
        "trace": tool.Projections(np.array([0.4, 0.4]), np.ones(2), {"2": np.array([0.5, 0.5])}),
    }
    console = Console(width=100)
    with console.capture() as capture:
        console.print(tool.signals(runs, reference))
        console.print(tool.slopes(runs, "hops"))
    text = capture.get()
    # 0.2² / (1 − 0.2²) is 0.219 of 0.4² / (1 − 0.4²).
    for said in ("0.200", "0.100", "100%", "0.400", "22%", "0.150", "0.500", "hops"):
        assert said in text


CONFIG = "model:\n  path: {model}\n"


def folder_of(path: Path, trees: list[list[RolloutTree]], model: str = "policy") -> Path:
    path.mkdir()
    (path / "config.yaml").write_text(CONFIG.format(model=model))
    for step, kept in enumerate(trees, 1):
        save_trees(path / "trees" / f"step_{step:05d}.jsonl.gz", kept)
    return path


def continued_tree() -> RolloutTree:
    tree = bare_tree([1.0, 0.0])
    tree.graft(1, chain(1000, 1, 0.0))
    return tree


@pytest.mark.parametrize(
    ("reference", "arguments", "said"),
    [
        ([], [], "holds no trees"),
        ([[bare_tree([1.0, 0.0])]], [], "must hold two steps or more"),
        ([[bare_tree([1.0])]] * 2, [], "must hold bare rollouts, two of each task or more"),
        ([[continued_tree()]] * 2, [], "must hold bare rollouts, two of each task or more"),
        ([[bare_tree([1.0, 0.0])]] * 2, ["--by", "colour"], "must be a field of every task"),
        ([[bare_tree([1.0, 0.0])]] * 2, ["--advantage", "gprp"], "grpo"),
        ([[bare_tree([1.0, 0.0])]] * 2, [], "must be the reference's, policy"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    tool, tmp_path, monkeypatch, capsys, reference, arguments, said
) -> None:
    first = folder_of(tmp_path / "reference", reference)
    run = folder_of(tmp_path / "run", [[bare_tree([1.0])]], model="other")
    if arguments[:1] == ["--advantage"]:
        run = first
    monkeypatch.setattr(sys, "argv", ["x", "--reference", str(first), str(run), *arguments])
    with pytest.raises(SystemExit):
        tool.main()
    assert said in capsys.readouterr().err
