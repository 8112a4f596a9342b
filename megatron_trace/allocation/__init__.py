"""Where the sampling budget goes: value functions, exact solvers, and one file per strategy."""

from megatron_trace.allocation.solver import solve_prefixes, solve_roots
from megatron_trace.allocation.strategy import STRATEGIES, Strategy, make_strategy
from megatron_trace.allocation.value import prefix_value, root_value

__all__ = [
    "STRATEGIES",
    "Strategy",
    "make_strategy",
    "prefix_value",
    "root_value",
    "solve_prefixes",
    "solve_roots",
]
