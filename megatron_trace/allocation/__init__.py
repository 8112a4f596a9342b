"""Where the sampling budget goes: one file a strategy, value functions and exact solvers."""

from megatron_trace.allocation.allocator import Allocator
from megatron_trace.allocation.planning_view import PlanningView, Plans
from megatron_trace.allocation.registry import (
    STRATEGIES,
    advantage_settings,
    make_strategy,
    strategy_class,
)
from megatron_trace.allocation.solvers import solve_prefixes, solve_roots
from megatron_trace.allocation.strategy import Strategy
from megatron_trace.allocation.value import prefix_value, root_value

__all__ = [
    "STRATEGIES",
    "Allocator",
    "PlanningView",
    "Plans",
    "Strategy",
    "advantage_settings",
    "make_strategy",
    "prefix_value",
    "root_value",
    "solve_prefixes",
    "solve_roots",
    "strategy_class",
]
