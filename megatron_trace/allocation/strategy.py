"""What a strategy of allocation is, and which there are."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from megatron_trace.allocation.trace import Trace
from megatron_trace.allocation.uniform import Uniform
from megatron_trace.config import AllocationConfig
from megatron_trace.tree import Anchor, RolloutTree


class Strategy(Protocol):
    """Spends a step's sampling budget; what both plans ask for sums to the budget exactly."""

    candidates: int
    """Tasks of which `plan_roots` wants to see the predictions."""

    def plan_roots(self, success: NDArray[np.float64]) -> NDArray[np.int64]:
        """Stage 1: bare rollouts of each candidate task, from its root's predicted success, [candidates]."""
        ...

    def plan_prefixes(self, trees: Sequence[RolloutTree]) -> list[dict[Anchor, int]]:
        """Stage 2: continuations of each anchor of each tree of bare rollouts."""
        ...

    def state(self) -> dict[str, Any]:
        """What it has learned so far and a resumed run must know, as JSON data."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        ...


STRATEGIES: dict[str, Callable[[AllocationConfig], Strategy]] = {"trace": Trace, "uniform": Uniform}


def make_strategy(settings: AllocationConfig) -> Strategy:
    """The strategy that `settings` names."""
    return STRATEGIES[settings.strategy](settings)
