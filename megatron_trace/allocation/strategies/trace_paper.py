"""TRACE: budget to the anchors whose descendants most likely hold both a success and a failure.

Tree Rollout Allocation for Contrastive Exploration, arXiv 2606.11119. A step has two stages:

1. Bare rollouts. Over a pool of candidate tasks with predicted success v_i, maximise
   Σ V_root(v_i, m_i) with V_root(v, m) = 1 − v^m − (1−v)^m.
2. Continuations. When the bare rollouts have ended, maximise Σ V_pref(q, k) with V_pref = 1 − q^k
   over the prefixes of each active task. q is the predicted probability that a continuation ends as
   its rollout did.

Ours: the continuations are split evenly over the active tasks, and stage 1 chooses by draws around
the predictions (`thompson_std`). docs/method.md lists all decisions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from megatron_trace.allocation.calibration import clipped_logit
from megatron_trace.allocation.expansion import (
    OpenPrefixes,
    best_continuations,
    open_prefixes,
    random_continuations,
)
from megatron_trace.allocation.planning_view import PlanningView, Plans
from megatron_trace.allocation.shares import split_evenly
from megatron_trace.allocation.solvers import solve_roots
from megatron_trace.allocation.strategy import Strategy, check_bare_share, check_pays
from megatron_trace.config import SettingError, setting
from megatron_trace.tree import ROOT


class TracePaper(Strategy):
    """Both stages. What TRACE learns is in the predictor, which is part of the policy."""

    advantage = "trace"
    branches = True
    bare_share = 0.75

    @dataclass
    class Options:
        """Limits of both stages."""

        roots: str = setting(
            "active",
            "active, as in the paper; uniform: `floor` bare rollouts of every task",
            one_of=("active", "uniform"),
        )
        prefixes: str = setting(
            "active",
            "active, as in the paper; uniform: continuations of prefixes drawn at random",
            one_of=("active", "uniform"),
        )
        floor: int = setting(
            4, "fewest bare rollouts of a task that gets any; at least 2 are made", at_least=0
        )
        root_cap: int | None = setting(
            None, "most bare rollouts that stage 1 gives a task; null: no limit", at_least=2
        )
        prefix_cap: int | None = setting(
            None, "most continuations of a prefix; null: no limit", at_least=1
        )
        # Without draws, tasks predicted a little nearer to 1/2 get everything, and the predictor
        # never learns better about the others.
        thompson_std: float | None = setting(
            None,
            "standard deviation, in logits, of the Thompson draws (arXiv 1707.02038) by which "
            "stage 1 chooses; "
            "null: estimated from the errors of the last steps' predictions; 0: no draws",
            at_least=0,
        )

    def candidates(self, rollouts: int) -> int:
        uniform = self._bare(rollouts) // self._floor
        return self.settings.pool if self.options.roots == "active" else uniform

    def plan(self, view: PlanningView) -> Plans:
        return self._plan_roots(view) if view.round == 0 else self._plan_prefixes(view)

    def _plan_roots(self, view: PlanningView) -> Plans:
        """Stage 1: bare rollouts of the tasks that most likely get mixed outcomes."""
        bare = self._payable(self._bare(view.total), len(view.trees))
        if self.options.roots == "uniform":
            tasks = bare // self._floor
            counts = split_evenly(bare, [bare] * tasks)
        else:
            success = self._drawn_success(view)
            counts = solve_roots(
                success, bare, floor=self._floor, cap=self.options.root_cap
            ).tolist()
        return view.at_roots(dict(enumerate(counts)))

    def _drawn_success(self, view: PlanningView) -> NDArray[np.float64]:
        """Success probabilities by which stage 1 chooses, [trees]: draws around the predictions."""
        std = self.options.thompson_std
        if std is None:
            std = view.root_logit_std
        if not std:
            return view.roots
        # Without draws, the tasks that are predicted a little nearer to ½ get the whole budget step
        # after step, and the predictor never sees outcomes that would correct it about the others.
        noise = std * view.rng.normal(size=len(view.trees))
        return expit(clipped_logit(view.roots) + noise)

    def _plan_prefixes(self, view: PlanningView) -> Plans:
        """Stage 2: continuations of the prefixes that most likely flip their rollout's outcome.

        What finds no prefix goes to the roots of the active tasks, so that the budget is spent.
        """
        active = [index for index, tree in enumerate(view.trees) if tree.rollouts]
        prefixes = [open_prefixes(view, index, self.options.prefix_cap) for index in active]
        costs = [cost for task in prefixes for cost in task.cost]
        cost = float(np.mean(costs)) if costs else view.cost(view.trees[0], ROOT)
        # Shares are counted in continuations of mean cost. With a budget of tokens, a task whose
        # continuations are cheap gets more of them for its share.
        continuations = int(view.left / cost + 1e-9)
        shares = split_evenly(continuations, [int(task.room.sum()) for task in prefixes])
        plans = view.nothing()
        for index, task, share in zip(active, prefixes, shares, strict=True):
            if share:
                counts = self._continuations(view, task, share, cost).tolist()
                pairs = zip(task.anchors, counts, strict=True)
                plans[index] = {anchor: count for anchor, count in pairs if count}
        rest = continuations - sum(shares)
        for index, more in zip(active, split_evenly(rest, [rest] * len(active)), strict=True):
            if more:
                plans[index][ROOT] = more
        return plans

    def _continuations(
        self, view: PlanningView, prefixes: OpenPrefixes, share: int, cost: float
    ) -> NDArray[np.int64]:
        """Continuations of each prefix of a task, [n]; together they cost `share` times `cost`."""
        if self.options.prefixes == "uniform":
            return random_continuations(prefixes, share, view.rng)
        capped = self.options.prefix_cap is not None
        return best_continuations(prefixes, share * cost, capped=capped)

    def _bare(self, total: int) -> int:
        """How many of a step's `total` rollouts are bare."""
        return max(self._floor, round(self.bare_share * total))

    def _payable(self, bare: int, roots: int) -> int:
        """The most of `bare` rollouts that `floor` and `root_cap` allow for `roots` tasks.

        `check` refuses budgets of rollouts that do not divide. A budget of tokens may pay for any
        number.
        """
        cap = self.options.root_cap
        if cap is None:
            return bare
        bare = min(bare, cap * roots)
        fewest_tasks = -(-bare // cap)
        return bare if fewest_tasks * self._floor <= bare else bare // cap * cap

    @property
    def _floor(self) -> int:
        return max(2, self.options.floor)

    def check(self) -> None:
        """
        Raises:
            SettingError: the bare rollouts cannot be split over the tasks, or an option is wrong.
        """
        check_bare_share(self.settings)
        self._check_options()
        if self.settings.unit.value == "tokens":
            # How many rollouts a budget of tokens pays for is known only while a run samples.
            check_pays(self.settings, self._floor)
        else:
            self._check_budget()

    def _check_options(self) -> None:
        options = self.options
        if options.root_cap is not None and options.root_cap < self._floor:
            remedy = f"must be at least {self._floor} (allocation.options.trace_paper.floor)"
            raise _error("root_cap", options.root_cap, remedy)

    def _check_budget(self) -> None:
        options, settings = self.options, self.settings
        bare = self._bare(settings.budget)
        if bare > settings.budget:
            remedy = f"is above the budget of {settings.budget} rollouts; lower it"
            raise _error("floor", options.floor, remedy)
        if options.roots == "uniform":
            return
        fewest_tasks = 1 if options.root_cap is None else -(-bare // options.root_cap)
        if fewest_tasks * self._floor > bare:
            remedy = (
                f"{bare} bare rollouts cannot be split into parts of {self._floor} (floor) "
                f"to {options.root_cap}"
            )
            raise _error("root_cap", options.root_cap, remedy)
        if settings.pool < fewest_tasks:
            remedy = (
                f"{bare} bare rollouts with at most {options.root_cap} a task (root_cap) "
                f"need {fewest_tasks} tasks"
            )
            raise SettingError("allocation.pool", settings.pool, remedy)


def _error(name: str, value: object, remedy: str) -> SettingError:
    return SettingError(f"allocation.options.trace_paper.{name}", value, remedy)
