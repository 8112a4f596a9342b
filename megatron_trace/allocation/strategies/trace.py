"""TRACE: budget to the anchors whose descendants most likely hold both a success and a failure.

Tree Rollout Allocation for Contrastive Exploration, arXiv 2606.11119. Stage 1 maximises Σ V_root(v_i, m_i),
V_root(v, m) = 1 − v^m − (1−v)^m, over a pool of candidate tasks; stage 2 maximises, in each active task,
Σ V_pref(q, k), V_pref = 1 − q^k, over the prefixes of its rollouts, q the predicted probability that a
continuation ends as its rollout did. Ours: the continuations are split evenly over the active tasks, and all that goes
beyond the paper (the options but for floor and caps; docs/strategies.md says what each brings).
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from megatron_trace.allocation.calibration import EDGE
from megatron_trace.allocation.expansion import Expansion
from megatron_trace.allocation.shares import split_evenly
from megatron_trace.allocation.situation import Plans, Situation
from megatron_trace.allocation.solver import solve_roots
from megatron_trace.allocation.strategy import Strategy, check_bare_share, check_pays
from megatron_trace.allocation.variance import solve_root_variance
from megatron_trace.config import SettingError


class Trace(Strategy):
    """Both stages. What it learns lies in the predictor, which is part of the policy."""

    advantage = "trace"
    branches = True
    bare_share = 0.75

    @dataclass
    class Options:
        """Both stages' limits, and what goes beyond the paper.

        Attributes:
            roots, prefixes: "active" as the paper has it, or "uniform": `floor` bare rollouts of every task, and
                continuations of prefixes drawn at random.
            floor: fewest bare rollouts of a task that gets any.
            root_cap, prefix_cap: most bare rollouts that stage 1 gives a task, most continuations of a prefix.
            doubt: standard deviation, in logits, of the draws around the predictions by which stage 1 chooses (Thompson
                sampling, arXiv 1707.02038); None: as far as outcomes were off the predictions in the last steps.
                Without it tasks that the predictor takes for a little nearer to ½ than others get everything, and
                it never learns better about the others.
            over_tasks: weigh the prefixes of all tasks against each other, instead of an even share for each.
            rounds: rounds of expansion; after each, prefixes whose outcome has been flipped get no more.
            deep: expand the continuations' own prefixes too.
            running_price: expand as rollouts end, at a running price, instead of waiting for the slowest.
            contrast: "mixed" (probability of both outcomes) or "variance" (expected variance; graded rewards).
        """

        roots: str = "active"
        prefixes: str = "active"
        floor: int = 4
        root_cap: int | None = None
        prefix_cap: int | None = None
        doubt: float | None = None
        over_tasks: bool = False
        rounds: int = 1
        deep: bool = False
        running_price: bool = False
        contrast: str = "mixed"

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.streams = self.options.running_price
        self._expansion = Expansion(self.options)

    def candidates(self, rollouts: int) -> int:
        uniform = self._bare(rollouts) // self._floor
        return self.settings.pool if self.options.roots == "active" else uniform

    def plan(self, now: Situation) -> Plans:
        return self._roots(now) if now.round == 0 else self._expansion.plan(now)

    def state(self) -> dict[str, object]:
        return self._expansion.state()

    def restore(self, state: dict[str, object]) -> None:
        self._expansion.restore(state)

    def _roots(self, now: Situation) -> Plans:
        bare, options = self._payable(self._bare(now.total), len(now.trees)), self.options
        if options.roots == "uniform":
            counts = np.array(split_evenly(bare, [bare] * (bare // self._floor)))
        else:
            solve = solve_roots if options.contrast == "mixed" else solve_root_variance
            doubt = now.root_deviation if options.doubt is None else options.doubt
            drawn = logit(np.clip(now.roots, EDGE, 1 - EDGE)) + doubt * now.rng.normal(
                size=len(now.trees)
            )
            success = expit(drawn) if doubt else now.roots
            counts = solve(success, bare, floor=self._floor, cap=options.root_cap)
        return now.at_roots({index: int(count) for index, count in enumerate(counts)})

    def _bare(self, total: int) -> int:
        return max(self._floor, round(self.bare_share * total))

    def _payable(self, bare: int, roots: int) -> int:
        """The most of `bare` rollouts that can be split over `roots` by floor and cap (a budget of tokens may pay for
        any number)."""
        if (cap := self.options.root_cap) is None:
            return bare
        bare = min(bare, cap * roots)
        return bare if -(-bare // cap) * self._floor <= bare else bare // cap * cap

    @property
    def _floor(self) -> int:
        return max(2, self.options.floor)

    def check(self) -> None:
        """
        Raises:
            SettingError: the bare rollouts cannot be split over the tasks, or an option is none of its values.
        """
        options, settings = self.options, self.settings
        check_bare_share(settings)
        choices = {
            "roots": ("active", "uniform"),
            "prefixes": ("active", "uniform"),
            "contrast": ("mixed", "variance"),
        }
        for name, values in choices.items():
            if getattr(options, name) not in values:
                raise _error(name, getattr(options, name), f"must be one of {', '.join(values)}")
        if options.doubt is not None and options.doubt < 0.0:
            raise _error(
                "doubt",
                options.doubt,
                "must not be negative, or null to follow the predictor's error",
            )
        if options.deep and options.rounds < 2 and not options.running_price:
            remedy = "needs two rounds or more (option rounds): in the first there are no continuations yet"
            raise _error("deep", True, remedy)
        if options.running_price and (options.prefixes == "uniform" or options.rounds > 1):
            remedy = "goes with prefixes=active and rounds=1: it takes the best prefixes whenever a rollout ends"
            raise _error("running_price", True, remedy)
        for name in ("root_cap", "prefix_cap", "rounds"):
            least = self._floor if name == "root_cap" else 1
            if getattr(options, name) is not None and getattr(options, name) < least:
                raise _error(name, getattr(options, name), f"must be at least {least}")
        if settings.unit.value == "tokens":
            check_pays(settings, self._floor)
            return  # how many rollouts a budget of tokens pays for, a run finds out
        bare = self._bare(settings.budget)
        if bare > settings.budget:
            raise _error(
                "floor",
                options.floor,
                f"is above the budget of {settings.budget} rollouts; lower it",
            )
        fewest = 1 if options.root_cap is None else -(-bare // options.root_cap)
        if options.roots == "active" and fewest * self._floor > bare:
            remedy = f"{bare} bare rollouts cannot be split into parts of {self._floor} (floor) to {options.root_cap}"
            raise _error("root_cap", options.root_cap, remedy)
        if options.roots == "active" and settings.pool < fewest:
            remedy = f"{bare} bare rollouts with at most {options.root_cap} a task (root_cap) need {fewest} tasks"
            raise SettingError("allocation.pool", settings.pool, remedy)


def _error(name: str, value: object, remedy: str) -> SettingError:
    return SettingError(f"allocation.options.trace.{name}", value, remedy)
