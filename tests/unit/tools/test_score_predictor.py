"""Scores of a predictor on steps that it has not learned from yet."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import distributed

from megatron_trace.config import LearningConfig, PredictorConfig

LEARNING = LearningConfig(predictor=PredictorConfig(learning_rate=3e-3, hidden=16))


@pytest.fixture(scope="module")
def tool(load_tool) -> ModuleType:
    load_tool("fit_predictor")
    return load_tool("score_predictor")


@pytest.fixture(autouse=True, scope="module")
def alone() -> Iterator[None]:
    """A process group of this process."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def steps(tool: ModuleType, count: int) -> list:
    """Steps whose anchors succeed where their first hidden number is positive."""
    torch.manual_seed(0)
    hidden = [torch.randn(80, 6) for _ in range(count)]
    root = np.arange(80) % 8 == 0
    return [tool.Step(states, (states[:, 0] > 0).float(), root) for states in hidden]


def test_what_is_learned_is_known_of_the_next_step(tool: ModuleType) -> None:
    seen = steps(tool, 8)
    predictions = tool.learned(seen, Path("no such folder"), LEARNING, seed=0)
    assert predictions[0] == pytest.approx(0.5)
    late = tool.means(seen, predictions, first=7)
    assert (
        late["prefixes auc"] > 0.9 > 0.5 > late["prefixes brier"] / late["prefixes brier_constant"]
    )


def test_a_step_is_scored_before_it_is_learned_from(tool: ModuleType) -> None:
    seen = steps(tool, 3)
    before = tool.learned(seen, Path("no such folder"), LEARNING, seed=0)
    seen[1] = tool.Step(seen[1].hidden, 1 - seen[1].target, seen[1].root)
    after = tool.learned(seen, Path("no such folder"), LEARNING, seed=0)
    np.testing.assert_array_equal(after[1], before[1])
    assert not np.array_equal(after[2], before[2])


def test_means_leave_out_the_first_steps_and_tell_roots_from_prefixes(tool: ModuleType) -> None:
    one = tool.Step(
        torch.zeros(3, 1), torch.tensor([1.0, 0.0, 1.0]), np.array([True, False, False])
    )
    means = tool.means([one, one], [np.array([0.0, 0.0, 0.0]), np.array([0.5, 0.5, 1.0])], first=2)
    assert (means["roots brier"], means["prefixes brier"], means["prefixes auc"]) == (
        0.25,
        0.125,
        1.0,
    )
