"""PCL against its formula, arXiv 2510.01135."""

import pytest

from megatron_trace.config import AdvantageConfig
from megatron_trace.learning.advantages.pcl import estimate as pcl
from megatron_trace.tree import ROOT
from tests.unit.learning.advantages.small_tree import small_tree
from tests.unit.trees import bare_tree


def test_a_rollout_is_compared_with_the_prediction_of_its_task() -> None:
    shared = (0.7 - 0.3 + 0.7) / 3
    expected = [0.0, shared, 0.7, 0.7, -0.3, -0.3, -0.3, -0.3, 0.7]
    assert list(pcl(small_tree(), AdvantageConfig())) == pytest.approx(expected, rel=1e-12)


def test_a_group_of_one_outcome_teaches_as_well() -> None:
    assert list(pcl(bare_tree([1.0, 1.0], turns=1), AdvantageConfig())) == [0.0, 0.5, 0.5]


def test_a_root_without_prediction_is_refused() -> None:
    tree = bare_tree([1.0, 0.0])
    tree.turns[ROOT].prediction = None
    with pytest.raises(ValueError, match="prediction of every root"):
        pcl(tree, AdvantageConfig())
