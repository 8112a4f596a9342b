"""Uniform (GRPO): the same number of bare rollouts for every task, no continuations.

The allocation of group-relative policy optimisation (arXiv 2402.03300), and the baseline of TRACE.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from megatron_trace.allocation.stateless import Stateless
from megatron_trace.config import AllocationConfig
from megatron_trace.tree import Anchor, RolloutTree


class Uniform(Stateless):
    """`group` rollouts of each of budget / group tasks."""

    def __init__(self, settings: AllocationConfig):
        self._group = settings.group
        self.candidates = settings.budget // settings.group

    def plan_roots(self, success: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.full(len(success), self._group, dtype=np.int64)

    def plan_prefixes(self, trees: Sequence[RolloutTree]) -> list[dict[Anchor, int]]:
        return [{} for _ in trees]
