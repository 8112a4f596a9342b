"""Tree-GRPO against its formula, arXiv 2509.21240."""

import numpy as np
import pytest

from megatron_trace.config import AdvantageConfig
from megatron_trace.learning.advantages.tree_grpo import estimate as tree_grpo
from tests.unit.learning.advantages.small_tree import small_tree


@pytest.mark.parametrize("std", [True, False])
def test_a_rollout_is_compared_with_its_task_and_with_its_chain(std: bool) -> None:
    # Leaves 3, 5, 7 and 8 of the task; 3, 7 and 8 of the chain.
    rewards = np.array([1.0, 0.0, 0.0, 1.0])
    chain = np.array([1.0, 0.0, 1.0])
    task = (rewards - 0.5) / (0.5 + 1e-6 if std else 1.0)
    own = (chain - 2 / 3) / (np.std(chain) + 1e-6 if std else 1.0)
    a = task + np.array([own[0], 0.0, own[1], own[2]])
    shared = (a[0] + a[2] + a[3]) / 3
    expected = [0.0, shared, a[0], a[0], a[1], a[1], a[2], a[2], a[3]]
    found = tree_grpo(small_tree(), AdvantageConfig(std=std))
    assert list(found) == pytest.approx(expected, rel=1e-12)
