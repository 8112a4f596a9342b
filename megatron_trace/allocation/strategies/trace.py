"""TRACE with beliefs: probe the tasks that may teach, then fill the trees that do.

Tree Rollout Allocation for Contrastive Exploration, arXiv 2606.11119, spends a step's budget on the
anchors whose descendants most likely hold both a success and a failure. `trace_paper` is the
paper's form. Here every anchor has a belief, a Beta distribution over its success probability
(`allocation/belief.py`), and the budget is spent in rounds, so that outcomes steer it:

1. *Probe.* The first `probe` rollouts of a new task; one more of a tree whose rollouts all ended
   alike, at the anchor, root or prefix, that most likely ends otherwise for its cost: E V_root and
   E V_pref.
2. *Price.* Tasks and prefixes compete for the same budget. A probe is taken if its chance of a
   mixed tree is worth its cost, at the price at which the whole budget is spent
   (`allocation/price.py`).
3. *Fill.* The last round gives what is left to the trees that have begun, where the next rollout
   adds most to Σ P(mixed)·u(m). A mixed tree's next rollout adds less the more it has. A tree that is
   not mixed gets `probe` at most; what then is left is planned once more.

Trees that do not get mixed teach too: the advantage compares rollouts with the belief about their
task (`learning/advantages/belief.py`).

A small share of the first probes goes to tasks drawn uniformly (`explore`). So a predictor that is
wrong about one kind of task keeps seeing that kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_trace.allocation.belief import all_alike, expected_root_value
from megatron_trace.allocation.planning_view import PlanningView, Plans
from megatron_trace.allocation.price import Offers, effective_size
from megatron_trace.allocation.shares import split_evenly
from megatron_trace.allocation.solvers.greedy import best_units
from megatron_trace.allocation.strategy import Strategy, check_bare_share, check_pays
from megatron_trace.config import SettingError, setting
from megatron_trace.tree import ROOT, Anchor, RolloutTree
from megatron_trace.tree.backup import is_mixed

Floats = NDArray[np.float64]

FORBIDDEN = -1.0
"""Below every true gain: such rollouts are taken last, and then removed."""


@dataclass(frozen=True)
class Flip:
    """The anchor of a tree that most likely ends otherwise than all its rollouts did.

    Attributes:
        anchor: root or prefix.
        same, other: what is believed of it: counts of the Beta distribution over the probability
            that a rollout from it ends as the tree's rollouts did.
    """

    anchor: Anchor
    same: float
    other: float

    @property
    def chance(self) -> float:
        """That the next rollout ends otherwise."""
        return self.other / (self.same + self.other)


class Trace(Strategy):
    """Probes at one price, then fills. What it learns is in the predictor and in the beliefs."""

    advantage = "belief"
    branches = True
    # What plan_cluster expects. The strategy itself decides in every step.
    bare_share = 0.85

    @dataclass
    class Options:
        """How the budget is spent."""

        rounds: int = setting(3, "rounds of a step; the last one fills", at_least=2)
        probe: int = setting(
            2,
            "first rollouts of a task",
            at_least=2,
            reason="one rollout has no contrast",
        )
        prefixes: bool = setting(
            True, "probe prefixes too; false: bare rollouts only, as without stage 2"
        )
        correlation: float = setting(
            0.1,
            "ρ, correlation of what two rollouts of one task teach: the larger, the more tasks "
            "share the budget",
            above=0,
            below=1,
        )
        explore: float = setting(
            0.05,
            "share of the first probes that goes to tasks drawn uniformly",
            at_least=0,
            at_most=1,
        )

    @property
    def least(self) -> int:
        return int(self.options.probe)

    def candidates(self, rollouts: int) -> int:
        return self.settings.pool

    def plan(self, view: PlanningView) -> Plans:
        flips = [self._flip(view, tree) for tree in view.trees]
        if view.round < self.options.rounds - 1:
            probes = self._probe(view, flips)
            if any(probes):
                return probes
        return self._fill(view, flips)

    def _flip(self, view: PlanningView, tree: RolloutTree) -> Flip | None:
        """The anchor to probe a tree at whose rollouts all ended alike; None for other trees."""
        if not tree.rollouts or is_mixed(tree):
            return None
        reward = tree.turns[tree.leaves()[0]].reward
        anchors, belief = [ROOT], view.beliefs.roots([tree])
        if self.options.prefixes:
            prefixes = tree.prefixes(of_continuations=True)
            anchors += prefixes
            belief = belief.joined(view.beliefs.prefixes(tree, prefixes))
        same, other = belief.same(reward)
        best = int(np.argmax(other / (same + other) / self._costs(view, tree, anchors)))
        return Flip(anchors[best], float(same[best]), float(other[best]))

    def _costs(self, view: PlanningView, tree: RolloutTree, anchors: Sequence[Anchor]) -> Floats:
        """Expected costs of a rollout from each anchor, as multiples of a bare rollout's."""
        costs = np.array([view.cost(tree, anchor) for anchor in anchors])
        return costs / view.cost(tree, ROOT)

    def _offers(self, view: PlanningView, flips: Sequence[Flip | None]) -> Offers:
        size = np.array([len(tree.rollouts) for tree in view.trees], dtype=np.float64)
        chance = expected_root_value(view.beliefs.roots(view.trees), self.options.probe)
        cost = np.ones(len(size))
        for index, (tree, flip) in enumerate(zip(view.trees, flips, strict=True)):
            if flip is not None:
                chance[index] = flip.chance
                cost[index] = self._costs(view, tree, [flip.anchor])[0]
        return Offers(
            size=size,
            mixed=np.array([is_mixed(tree) for tree in view.trees]),
            probe=np.where(size > 0, 1.0, self.options.probe),
            cost=cost,
            chance=chance,
            correlation=self.options.correlation,
        )

    def _probe(self, view: PlanningView, flips: Sequence[Flip | None]) -> Plans:
        """The probes that are worth their price."""
        offers = self._offers(view, flips)
        price = offers.clearing_price(view.rollouts)
        gain, demand = offers.gain(price), offers.demand(price)
        # A task whose probe failed in its environment is not probed again.
        broken = [
            bool(f) and not tree.rollouts for f, tree in zip(view.failed, view.trees, strict=True)
        ]
        gain[broken] = -np.inf
        order = [int(index) for index in np.argsort(-gain, kind="stable") if gain[index] > -np.inf]
        # At the clearing price trees that are alike may all just be worth a probe, or none. In
        # order of gain until the budget is met, as many as it pays for are taken.
        expected = float(demand[offers.mixed].sum()) + np.cumsum(demand[order])
        count = int(np.count_nonzero(expected <= view.rollouts))
        if view.round == 0:
            count = max(count, 1)
            order = self._explored(view, order, count)
        plans = view.nothing()
        for index in order[:count]:
            flip = flips[index]
            anchor = ROOT if flip is None else flip.anchor
            plans[index] = {anchor: int(offers.probe[index])}
        return plans

    def _explored(self, view: PlanningView, order: list[int], count: int) -> list[int]:
        """`order` with `explore` of its first `count` places for tasks drawn uniformly."""
        drawn = int(view.rng.binomial(count, self.options.explore))
        uniform = view.rng.permutation(len(view.trees))[:drawn].tolist()
        return uniform + [index for index in order if index not in uniform]

    def _fill(self, view: PlanningView, flips: Sequence[Flip | None]) -> Plans:
        """What is left, to the trees where the next rollout adds most to Σ P(mixed)·u(m)."""
        begun = [index for index, tree in enumerate(view.trees) if tree.rollouts]
        if not begun:
            # All probes failed in their environment.
            fresh = [index for index in view.fresh() if not view.failed[index]] or view.fresh()
            shares = split_evenly(view.rollouts, [self.options.probe] * len(fresh))
            return view.at_roots(dict(zip(fresh, shares, strict=True)))
        anchors: list[Anchor] = []
        for index in begun:
            flip = flips[index]
            anchors.append(ROOT if flip is None else flip.anchor)
        pairs = zip(begun, anchors, strict=True)
        costs = np.array([self._costs(view, view.trees[at], [anchor])[0] for at, anchor in pairs])
        budget = view.left / view.cost(view.trees[0], ROOT)
        more = np.arange(int(budget / costs.min() + 1e-9) + 1)
        gains = np.array([self._gains(view.trees[index], flips[index], more) for index in begun])
        counts = best_units(gains, costs, budget)
        counts = np.minimum(counts, np.count_nonzero(gains > FORBIDDEN, axis=1))
        plans = view.nothing()
        for index, anchor, count in zip(begun, anchors, counts.tolist(), strict=True):
            if count:
                plans[index] = {anchor: count}
        return plans

    def _gains(self, tree: RolloutTree, flip: Flip | None, more: NDArray[np.int64]) -> Floats:
        """What each further rollout adds to P(mixed)·u(m) of a tree, [len(more) − 1]."""
        value = effective_size(len(tree.rollouts) + more, self.options.correlation)
        if flip is None:
            return np.diff(value)
        gains = np.diff(value * (1.0 - all_alike(flip.same, flip.other, more)))
        # After a few more equal outcomes another anchor may be likelier to end otherwise.
        gains[self.options.probe :] = FORBIDDEN
        return gains

    def check(self) -> None:
        """
        Raises:
            SettingError: the budget does not pay for a probe, or a share is out of bounds.
        """
        settings, probe = self.settings, self.options.probe
        check_bare_share(settings)
        if settings.unit.value == "tokens":
            check_pays(settings, probe)
        elif settings.budget < probe:
            remedy = f"must pay for {probe} rollouts (allocation.options.trace.probe)"
            raise SettingError("allocation.budget", settings.budget, remedy)
