"""GiGPO: groups as in GRPO; what is learned from them differs.

Group-in-Group Policy Optimization, arXiv 2505.10978. It samples as GRPO does (8 rollouts of every
task) and compares steps of these rollouts that begin in an identical state: A = A_E + ω·A_S, which
is `learning.advantage.name=gigpo`.
"""

from megatron_trace.allocation.strategies.uniform import Uniform


class Gigpo(Uniform):
    """`allocation.group` rollouts of as many tasks as the budget pays for."""

    advantage = "gigpo"
