"""TreePO against its formula, arXiv 2508.17445."""

import numpy as np
import pytest

from megatron_trace.config import AdvantageConfig
from megatron_trace.learning.advantages.treepo import estimate as treepo
from megatron_trace.tree import ROOT
from tests.unit.learning.advantages.small_tree import small_tree
from tests.unit.trees import chain, empty_tree


@pytest.mark.parametrize("std", [True, False])
def test_a_rollout_is_compared_at_every_depth(std: bool) -> None:
    # Leaves 3, 7 and 8 also share turn 1, with a mean reward of 2/3; leaf 5 has only the root's
    # subgroup.
    values = np.array([(0.5 + 1 / 3) / 2, -0.5, (-0.5 - 2 / 3) / 2, (0.5 + 1 / 3) / 2])
    a = (values - values.mean()) / (values.std() + 1e-6 if std else 1.0)
    shared = (a[0] + a[2] + a[3]) / 3
    expected = [0.0, shared, a[0], a[0], a[1], a[1], a[2], a[2], a[3]]
    assert list(treepo(small_tree(), AdvantageConfig(std=std))) == pytest.approx(
        expected, rel=1e-12
    )


def test_a_subgroup_counts_at_every_depth_that_it_spans() -> None:
    tree = empty_tree()
    tree.graft(ROOT, chain(100, 3, 1.0))  # 1, 2, 3
    tree.graft(2, chain(500, 1, 0.0))  # 4, which shares turns 1 and 2
    tree.graft(ROOT, chain(200, 1, 1.0))  # 5
    values = np.array([(1 / 3 + 1 / 2 + 1 / 2) / 3, (-2 / 3 - 1 / 2 - 1 / 2) / 3, 1 / 3])
    a = values - values.mean()
    found = treepo(tree, AdvantageConfig(std=False))
    assert list(found[3:]) == pytest.approx(list(a), rel=1e-12)
