"""The prefixes of a tree that may be continued, and how continuations are shared among them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_trace.allocation.planning_view import PlanningView
from megatron_trace.allocation.solvers import solve_prefixes
from megatron_trace.allocation.solvers.greedy import best_units
from megatron_trace.allocation.value import same_outcome
from megatron_trace.tree import ROOT, Anchor, RolloutTree

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class OpenPrefixes:
    """The prefixes of one tree that may be continued, in the order of their turns.

    Attributes:
        anchors: indices of their turns, [n].
        repeats: predicted probability q that a continuation ends as the prefix's rollout did, [n].
        room: continuations that each may still get, [n].
        cost: expected cost of one continuation, in the budget's unit, [n].
    """

    anchors: list[Anchor]
    repeats: Floats
    room: Counts
    cost: Floats


def open_prefixes(view: PlanningView, index: int, cap: int | None) -> OpenPrefixes:
    """The prefixes of the tree at `index` that have a prediction, room, and no flipped outcome yet.

    Args:
        cap: a prefix gets at most this many continuations; None for no limit.
    """
    tree = view.trees[index]
    rewards = _rewards(tree)
    flipped = _flipped(tree, rewards)
    taken = Counter(rollout.anchor for rollout in tree.rollouts)
    taken.update(view.pending[index])
    success = view.success(tree)

    def room(anchor: Anchor) -> int:
        return view.total if cap is None else cap - taken[anchor]

    # Continuations' own prefixes are left out: the paper expands prefixes of bare rollouts. So are
    # flipped prefixes, as V_pref is the probability of a first flip.
    anchors = [
        anchor
        for anchor in tree.prefixes()
        if anchor not in flipped and room(anchor) > 0 and np.isfinite(success[anchor])
    ]
    outcome = np.array([rewards[tree.turns[anchor].rollout] for anchor in anchors])
    return OpenPrefixes(
        anchors=anchors,
        repeats=same_outcome(success[anchors], outcome),
        room=np.array([room(anchor) for anchor in anchors], dtype=np.int64),
        cost=np.array([view.cost(tree, anchor) for anchor in anchors], dtype=np.float64),
    )


def _rewards(tree: RolloutTree) -> dict[int, float]:
    """Rollout -> its terminal reward."""
    return {turn.rollout: turn.reward for turn in tree.turns if turn.terminal}


def _flipped(tree: RolloutTree, rewards: Mapping[int, float]) -> set[Anchor]:
    """Anchors from which a rollout has ended otherwise than the first one that came there.

    It is a continuation of the anchor or, where equal histories are merged, another rollout that
    sampled the anchor's turn itself.
    """
    flipped = set()
    for leaf in tree.leaves():
        number = tree.turns[leaf].rollout
        anchor = tree.rollouts[number].anchor
        path = tree.path(leaf)
        for turn in path[path.index(anchor) : -1]:
            if turn != ROOT and rewards[number] != rewards[tree.turns[turn].rollout]:
                flipped.add(turn)
    return flipped


def best_continuations(prefixes: OpenPrefixes, budget: float, *, capped: bool) -> Counts:
    """Continuations of each prefix that maximise Σ V_pref, V_pref = 1 − q^k, within `budget`.

    The result is exact where all continuations cost the same, as they do in a budget of rollouts.
    Otherwise continuations are taken greedily by gain per cost.

    Args:
        budget: what the continuations together may cost; at least the cost of one.
        capped: whether `prefixes.room` limits the counts.

    Returns:
        counts, [n].
    """
    if np.ptp(prefixes.cost) == 0.0 and not capped:
        affordable = int(budget / prefixes.cost[0] + 1e-9)
        return solve_prefixes(prefixes.repeats, affordable)
    most = int(budget / prefixes.cost.min() + 1e-9)
    continuation = np.arange(most)
    q = prefixes.repeats[:, None]
    gains = (1.0 - q) * q**continuation
    # −1 is below every true gain, so units beyond the room are taken last. The minimum below
    # removes them again where the budget pays for all units.
    gains = np.where(continuation < prefixes.room[:, None], gains, -1.0)
    return np.minimum(best_units(gains, prefixes.cost, budget), prefixes.room)


def random_continuations(prefixes: OpenPrefixes, count: int, rng: np.random.Generator) -> Counts:
    """`count` continuations of prefixes drawn uniformly, each within its room; counts, [n]."""
    most = np.minimum(prefixes.room, count)
    slots = np.repeat(np.arange(len(most)), most)
    drawn = rng.permutation(slots)[:count]
    return np.bincount(drawn, minlength=len(most)).astype(np.int64)
