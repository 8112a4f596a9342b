"""PCL: of k·m candidate tasks the m whose predicted success is nearest to τ.

Prompt Curriculum Learning, arXiv 2510.01135. A value model V(x) is trained beside the policy on
each prompt's mean reward. A step keeps the m prompts with the smallest |V(x) − τ|, samples n
rollouts of each, and learns with the advantage r − V(x). The paper has k = 4 and τ = 0.5.

Ours: V is the predictor at the root, calibrated for the allocation; m = rollouts /
`allocation.group`. Of tasks equally far from τ the earlier comes first.
"""

from dataclasses import dataclass

import numpy as np

from megatron_trace.allocation.planning_view import PlanningView, Plans
from megatron_trace.allocation.strategy import Strategy
from megatron_trace.config import setting


class Pcl(Strategy):
    """`allocation.group` rollouts of the tasks nearest to τ."""

    advantage = "pcl"

    @dataclass
    class Options:
        """The paper's k and τ."""

        k: int = setting(4, "candidate tasks for each task that is taken", at_least=1)
        tau: float = setting(
            0.5, "success probability that a task should have", at_least=0, at_most=1
        )

    def candidates(self, rollouts: int) -> int:
        return self.options.k * super().candidates(rollouts)

    def plan(self, view: PlanningView) -> Plans:
        fresh, group = np.array(view.fresh(), dtype=np.int64), self.settings.group
        # A stable sort, so that the order of equally near tasks is that of the data.
        nearest = fresh[np.argsort(np.abs(view.roots[fresh] - self.options.tau), kind="stable")]
        return view.at_roots({int(index): group for index in nearest[: view.rollouts // group]})
