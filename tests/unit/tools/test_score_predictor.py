"""Scores of a predictor on steps that it has not learned from yet, and what none could beat."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from megatron_trace.config import AdvantageConfig, PredictorConfig
from megatron_trace.models.predictor import FILE
from megatron_trace.tree import save_trees
from megatron_trace.tree.predictions import Outcomes, scores
from tests.unit.trees import bare_tree, empty_tree

SETTINGS = PredictorConfig()
NOWHERE = Path("no such folder")


@pytest.fixture(scope="module")
def tool(load_tool) -> ModuleType:
    load_tool("fit_predictor")
    return load_tool("score_predictor")


def make_step(tool: ModuleType, hidden: torch.Tensor, target: torch.Tensor) -> Any:
    """A step in which every eighth anchor is a root, with four rollouts."""
    root = torch.arange(len(target)) % 8 == 0
    success = target[root].double().numpy()
    roots = Outcomes(np.full(len(success), 0.5), success, np.full(len(success), 4.0))
    return tool.Step(tool.Anchors(hidden, target, root, 4 * int(root.sum())), roots)


def steps(tool: ModuleType, count: int) -> list[Any]:
    """Steps whose anchors succeed where their first hidden number is positive."""
    torch.manual_seed(0)
    hidden = [torch.randn(80, 6) for _ in range(count)]
    return [make_step(tool, states, (states[:, 0] > 0).float()) for states in hidden]


def test_what_is_learned_is_known_of_the_next_step(tool: ModuleType) -> None:
    seen = steps(tool, 8)
    predictions = tool.learned_from(seen, NOWHERE, SETTINGS)
    assert predictions[0] == pytest.approx(0.5)
    for late in tool.pooled(seen, predictions, first=7):
        found = scores(late)
        assert found["auc"] > 0.9 and found["brier"] < 0.5 * found["brier_constant"]


def test_a_step_is_scored_before_it_is_learned_from(tool: ModuleType) -> None:
    seen = steps(tool, 3)
    before = tool.learned_from(seen, NOWHERE, SETTINGS)
    seen[1] = make_step(tool, seen[1].anchors.hidden, 1 - seen[1].anchors.target)
    after = tool.learned_from(seen, NOWHERE, SETTINGS)
    for number in (0, 1):
        np.testing.assert_array_equal(after[number], before[number])
    assert not np.allclose(after[2], before[2], atol=0.01)


def test_the_first_predictions_are_those_of_the_policys_head(
    tool: ModuleType, tmp_path: Path
) -> None:
    weight, bias = torch.randn(1, 6), torch.randn(1)
    save_file({"predictor.weight": weight, "predictor.bias": bias}, tmp_path / FILE)
    (step,) = steps(tool, 1)
    (prediction,) = tool.learned_from([step], tmp_path, SETTINGS)
    logit = step.anchors.hidden @ weight[0] + bias
    np.testing.assert_allclose(prediction, torch.sigmoid(logit).numpy(), atol=1e-6)


def test_settings_change_what_is_learned(tool: ModuleType) -> None:
    seen = steps(tool, 3)
    usual = tool.learned_from(seen, NOWHERE, SETTINGS)
    for other in (replace(SETTINGS, prior_std=0.5), replace(SETTINGS, forgetting=0.9)):
        assert not np.allclose(tool.learned_from(seen, NOWHERE, other)[2], usual[2], atol=1e-3)


def test_pooled_leaves_out_the_first_steps_and_tells_roots_from_prefixes(tool: ModuleType) -> None:
    anchors = tool.Anchors(
        torch.zeros(3, 1), torch.tensor([0.9, 0.0, 1.0]), torch.tensor([True, False, False]), 4
    )
    # A root's outcomes are those of its bare rollouts, and not the target that it learns from.
    step = tool.Step(anchors, Outcomes(np.array([0.3]), np.array([0.75]), np.array([4.0])))
    predictions = [np.array([0.0, 0.1, 0.2]), np.array([0.5, 0.6, 0.7]), np.array([0.8, 0.9, 1.0])]
    roots, prefixes = tool.pooled([step] * 3, predictions, first=2)
    assert roots.prediction.tolist() == [0.5, 0.8]
    assert roots.success.tolist() == [0.75] * 2 and roots.weight.tolist() == [4.0] * 2
    assert prefixes.prediction.tolist() == [0.6, 0.7, 0.9, 1.0]
    assert prefixes.success.tolist() == [0.0, 1.0] * 2 and prefixes.weight.tolist() == [1.0] * 4


def test_nearest_looks_at_37_of_100_roots(tool: ModuleType) -> None:
    prediction = np.linspace(0.0, 1.0, 100)
    near = np.abs(prediction - 0.5) < 0.187
    assert near.sum() in (36, 37, 38)
    assert tool.nearest(prediction, near.astype(float)) == pytest.approx(100 / 37, rel=0.03)
    assert tool.nearest(prediction, 1.0 - near) == pytest.approx(0.0, abs=0.05)
    assert tool.nearest(prediction, np.ones(100)) == 1.0


def rolled_out(chance: np.ndarray, rollouts: int = 4) -> Outcomes:
    """Outcomes of roots of these success probabilities."""
    wins = np.random.default_rng(0).binomial(rollouts, chance)
    weight = np.full(len(chance), float(rollouts))
    return Outcomes(np.full(len(chance), 0.5), wins / rollouts, weight)


def test_how_roots_differ_is_found_from_their_outcomes(tool: ModuleType) -> None:
    found = rolled_out(np.repeat([0.2, 0.8], 500), rollouts=8)
    share = tool.spread(found.success, found.weight)
    assert share.sum() == pytest.approx(1.0) and share.min() >= 0.0
    for chance in (0.2, 0.8):
        assert share[np.abs(tool.GRID - chance) < 0.1].sum() == pytest.approx(0.5, abs=0.06)


def test_roots_that_always_or_never_succeed_can_be_told_apart(tool: ModuleType) -> None:
    found = tool.ceiling(rolled_out(np.repeat([0.0, 1.0], 200)))
    assert found["auc"] == pytest.approx(1.0, abs=0.01)


def test_roots_that_all_are_alike_cannot_be_told_apart(tool: ModuleType) -> None:
    found = tool.ceiling(rolled_out(np.full(1500, 0.5)))
    assert found["auc"] == pytest.approx(0.5, abs=0.06)
    assert found["nearest"] == pytest.approx(1.0, abs=0.05)


def test_no_predictor_beats_the_ceiling_and_the_truth_reaches_it(tool: ModuleType) -> None:
    chance = np.random.default_rng(1).beta(0.6, 0.9, 3000)
    found = rolled_out(chance)
    best, truth = tool.ceiling(found), replace(found, prediction=chance)
    mixed = ((found.success > 0) & (found.success < 1)).astype(float)
    assert scores(truth)["auc"] == pytest.approx(best["auc"], abs=0.02)
    assert tool.nearest(chance, mixed) == pytest.approx(best["nearest"], rel=0.05)
    blurred = np.clip(chance + np.random.default_rng(2).normal(0, 0.3, 3000), 0, 1)
    assert scores(replace(found, prediction=blurred))["auc"] < best["auc"] - 0.02
    assert tool.nearest(blurred, mixed) < best["nearest"] - 0.05


def test_the_table_has_a_row_for_roots_and_one_for_prefixes(tool: ModuleType) -> None:
    seen = steps(tool, 8)
    predictions = tool.learned_from(seen, NOWHERE, SETTINGS)
    # Some roots get mixed, or nothing could be said of those.
    for step in seen:
        step.roots.success[::3] = 0.5
    roots, prefixes = tool.pooled(seen, predictions, first=6)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(tool.table(roots, prefixes))
    text = capture.get()
    assert "30 roots" in text and "210 prefixes" in text
    for found in (scores(roots), scores(prefixes)):
        assert f"{found['brier']:.4f}" in text and f"{found['auc']:.3f}" in text
    assert f"{tool.ceiling(roots)['auc']:.3f}" in text


class Echo(torch.nn.Module):
    """A language model whose hidden states are the tokens."""

    def forward(self, input_ids: torch.Tensor) -> Any:
        return SimpleNamespace(last_hidden_state=input_ids[:, :, None].float())


def test_steps_hold_the_anchors_of_all_trees_in_order(tool: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "trees").mkdir()
    mixed, failed = bare_tree([1.0, 0.0]), bare_tree([0.0])
    for step, trees in ((10, [failed]), (2, [mixed, empty_tree(), failed])):
        save_trees(tmp_path / "trees" / f"step_{step}.jsonl.gz", trees)
    first, second = tool.steps_of(tmp_path, Echo(), AdvantageConfig())
    # A prompt ends with token 3, a rollout's first observation with 103 and 203.
    assert first.anchors.hidden.flatten().tolist() == [3, 103, 203, 3, 103]
    assert first.anchors.root.tolist() == [True, False, False, True, False]
    assert first.anchors.target.tolist() == [0.5, 1.0, 0.0, 0.0, 0.0]
    assert first.roots.success.tolist() == [0.5, 0.0] and first.roots.weight.tolist() == [2.0, 1.0]
    assert second.anchors.hidden.flatten().tolist() == [3, 103]
