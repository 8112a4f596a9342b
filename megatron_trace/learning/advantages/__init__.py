"""Advantage estimators, one a file: what credit a turn gets from the terminal rewards of its task's tree.

An estimator is a function `(tree, learning) -> advantages [turns]`, float64; the root's is 0. It sees one task's tree,
whatever grew it, so every estimator goes with every allocation strategy. docs/advantages.md holds them side by side.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from megatron_trace.config import AdvantageConfig
from megatron_trace.learning.advantages.at2po import at2po
from megatron_trace.learning.advantages.gigpo import gigpo
from megatron_trace.learning.advantages.groups import EPSILON
from megatron_trace.learning.advantages.grpo import grpo
from megatron_trace.learning.advantages.pcl import pcl
from megatron_trace.learning.advantages.rloo import rloo
from megatron_trace.learning.advantages.trace import trace
from megatron_trace.learning.advantages.tree_grpo import tree_grpo
from megatron_trace.learning.advantages.treepo import treepo
from megatron_trace.tree import RolloutTree

Estimator = Callable[[RolloutTree, AdvantageConfig], NDArray[np.float64]]

ADVANTAGES: dict[str, Estimator] = {
    "at2po": at2po,
    "gigpo": gigpo,
    "grpo": grpo,
    "pcl": pcl,
    "rloo": rloo,
    "trace": trace,
    "tree_grpo": tree_grpo,
    "treepo": treepo,
}
"""Estimators by the name that `learning.advantage.name` gives."""

DEFAULT = "trace"
"""The estimator where `learning.advantage.name` is null and no strategy has filled it in."""

__all__ = ["ADVANTAGES", "DEFAULT", "EPSILON", "Estimator"]
