"""Integer solvers of the allocation problems: whole rollouts, exact where the problem allows it."""

from megatron_trace.allocation.solvers.prefixes import solve_prefixes
from megatron_trace.allocation.solvers.roots import solve_roots

__all__ = ["solve_prefixes", "solve_roots"]
