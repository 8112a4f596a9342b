"""GRPO against its formula, arXiv 2402.03300."""

import numpy as np
import pytest

from megatron_trace.config import AdvantageConfig
from megatron_trace.learning.advantages.grpo import estimate as grpo
from tests.unit.learning.advantages.small_tree import small_tree

REWARDS = np.array([1.0, 0.0, 0.0, 1.0])
"""Of the leaves 3, 5, 7 and 8."""


@pytest.mark.parametrize("std", [True, False])
def test_a_rollout_is_compared_with_all_of_its_task(std: bool) -> None:
    a = (REWARDS - 0.5) / (0.5 + 1e-6 if std else 1.0)
    shared = (a[0] + a[2] + a[3]) / 3  # turn 1, of three rollouts
    expected = [0.0, shared, a[0], a[0], a[1], a[1], a[2], a[2], a[3]]
    assert list(grpo(small_tree(), AdvantageConfig(std=std))) == pytest.approx(expected, rel=1e-12)
