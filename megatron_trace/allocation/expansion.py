"""TRACE's stage 2: which prefixes of a step's trees get continuations (arXiv 2606.11119)."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_trace.allocation.price import RunningPrice
from megatron_trace.allocation.shares import split_evenly
from megatron_trace.allocation.situation import Plans, Situation
from megatron_trace.allocation.solver import solve_prefixes
from megatron_trace.allocation.value import same_outcome
from megatron_trace.allocation.variance import best_units, prefix_variance
from megatron_trace.tree import ROOT, Anchor

UNITS = 4
"""Continuations of one prefix that a running price considers."""


@dataclass(frozen=True)
class Open:
    """Prefixes that may be expanded, [n] each.

    Attributes:
        tree, anchor: where they are.
        success: predicted probability of a success.
        reward: terminal reward of the rollout that added each.
        room: continuations that each may still get.
        cost: expected cost of a continuation.
    """

    tree: NDArray[np.int64]
    anchor: NDArray[np.int64]
    success: NDArray[np.float64]
    reward: NDArray[np.float64]
    room: NDArray[np.int64]
    cost: NDArray[np.float64]

    def at(self, chosen: NDArray[Any]) -> "Open":
        """Those of a mask or of indices."""
        return Open(*(column[chosen] for column in vars(self).values()))


class Expansion:
    """Plans continuations; `options` are those of `strategies/trace.py`."""

    def __init__(self, options: Any) -> None:
        """Nothing is expanded yet."""
        self._options = options
        self._price = RunningPrice()
        self._offered: set[tuple[int, Anchor]] = set()
        self._ended = 0
        self._rate: float | None = None

    def plan(self, now: Situation) -> Plans:
        """The next continuations of the trees that have rollouts."""
        if self._options.running_price and any(now.pending):
            return self._as_rollouts_end(now)
        rounds_left = max(1, self._options.rounds - now.round + 1)
        budget = now.left / rounds_left
        prefixes, plans = self._open(now), now.nothing()
        active = [index for index, tree in enumerate(now.trees) if tree.rollouts]
        unit = float(np.mean(prefixes.cost)) if len(prefixes.cost) else now.cost(now.trees[0], ROOT)
        whole = int(budget / unit + 1e-9) if rounds_left == 1 else -int(-budget // unit)
        rest = self._spread(now, prefixes, plans, active, whole, unit)
        for index, more in zip(active, split_evenly(rest, [rest] * len(active)), strict=True):
            if more:  # no tree has an open prefix
                plans[index][ROOT] = more
        return plans

    def _spread(
        self,
        now: Situation,
        prefixes: Open,
        plans: Plans,
        active: list[int],
        whole: int,
        unit: float,
    ) -> int:
        """Fill `plans` with `whole` continuations of mean cost `unit`; returns how many found no place."""
        if self._options.over_tasks:
            room = min(whole, int(prefixes.room.sum()))
            groups, shares = [np.ones(len(prefixes.tree), dtype=bool)], [room]
        else:
            groups = [prefixes.tree == index for index in active]
            shares = split_evenly(whole, [int(prefixes.room[group].sum()) for group in groups])
        for group, share in zip(groups, shares, strict=True):
            some = prefixes.at(group)
            for tree, anchor, count in zip(
                some.tree, some.anchor, self._solve(now, some, share, unit), strict=True
            ):
                if count:
                    plans[int(tree)][int(anchor)] = int(count)
        return whole - sum(shares)

    def _solve(self, now: Situation, some: Open, share: int, unit: float) -> NDArray[np.int64]:
        """Continuations of each prefix; together they cost what `share` of mean cost `unit` do."""
        if not share:
            return np.zeros(len(some.tree), dtype=np.int64)
        if self._options.prefixes == "uniform":
            slots = np.repeat(np.arange(len(some.tree)), np.minimum(some.room, share))
            return np.bincount(now.rng.permutation(slots)[:share], minlength=len(some.tree)).astype(
                np.int64
            )
        equal = np.ptp(some.cost) == 0.0
        if self._options.contrast == "mixed" and equal and self._options.prefix_cap is None:
            paid = int(share * unit / some.cost[0] + 1e-9)
            return solve_prefixes(same_outcome(some.success, some.reward), paid)
        units = int(share * unit / some.cost.min() + 1e-9)
        gains = np.where(np.arange(units) < some.room[:, None], self._gains(some, units), -1.0)
        return np.minimum(best_units(gains, some.cost, share * unit), some.room)

    def _gains(self, some: Open, units: int) -> NDArray[np.float64]:
        """What the k-th continuation of each prefix adds, [n, units]."""
        k = np.arange(units)
        if self._options.contrast == "mixed":
            q = same_outcome(some.success, some.reward)[:, None]
            return (1.0 - q) * q**k
        v, r = some.success[:, None], some.reward[:, None]
        return prefix_variance(v, r, k + 1) - prefix_variance(v, r, k)

    def _as_rollouts_end(self, now: Situation) -> Plans:
        """Offer the prefixes of what has just ended to the running price."""
        if now.round == 1:
            if self._ended:  # of the step before
                self._rate = len(self._offered) / self._ended
            self._offered = set()
        plans, prefixes = now.nothing(), self._open(now)
        places = list(zip(prefixes.tree.tolist(), prefixes.anchor.tolist(), strict=True))
        fresh = prefixes.at(np.array([place not in self._offered for place in places], dtype=bool))
        self._offered |= set(places)
        if not len(fresh.tree):
            return plans
        gains = (
            np.where(np.arange(UNITS) < fresh.room[:, None], self._gains(fresh, UNITS), 0.0)
            / fresh.cost[:, None]
        )
        self._ended = sum(rollout.anchor == ROOT for tree in now.trees for rollout in tree.rollouts)
        waiting = sum(pending[ROOT] for pending in now.pending if ROOT in pending)
        # Short rollouts end first and offer little, so a step's own rate would be too low at its beginning.
        rate = len(self._offered) / max(self._ended, 1) if self._rate is None else self._rate
        coming = waiting * UNITS * rate
        affordable = now.left / float(fresh.cost.mean())
        price = self._price.take(gains.ravel().tolist(), coming=coming, affordable=affordable)
        counts = best_units(
            np.where(gains >= price, gains, 0.0) * fresh.cost[:, None], fresh.cost, now.left
        )
        counts = np.minimum(counts, (gains >= max(price, 1e-12)).sum(axis=1))
        for tree, anchor, count in zip(fresh.tree, fresh.anchor, counts, strict=True):
            if count:
                plans[int(tree)][int(anchor)] = int(count)
        return plans

    def _open(self, now: Situation) -> Open:
        """Prefixes whose outcome no continuation has flipped yet, and that may get more."""
        rows: list[tuple[float, ...]] = []
        for index, tree in enumerate(now.trees):
            if not tree.rollouts:
                continue
            rewards = {turn.rollout: turn.reward for turn in tree.turns if turn.terminal}
            taken = Counter(rollout.anchor for rollout in tree.rollouts) + Counter(
                now.pending[index]
            )
            flipped = {
                rollout.anchor
                for number, rollout in enumerate(tree.rollouts)
                if rollout.anchor != ROOT
                and rewards[number] != rewards[tree.turns[rollout.anchor].rollout]
            }
            success = now.success(tree)
            for anchor in tree.prefixes(of_continuations=self._options.deep):
                cap = self._options.prefix_cap
                room = now.total if cap is None else cap - taken[anchor]
                if anchor not in flipped and room > 0 and np.isfinite(success[anchor]):
                    reward = rewards[tree.turns[anchor].rollout]
                    rows.append(
                        (index, anchor, success[anchor], reward, room, now.cost(tree, anchor))
                    )
        columns = np.array(rows, dtype=np.float64).reshape(-1, 6).T
        whole = columns.astype(np.int64)
        return Open(whole[0], whole[1], columns[2], columns[3], whole[4], columns[5])

    def state(self) -> dict[str, Any]:
        """As JSON data."""
        rate = len(self._offered) / self._ended if self._ended else self._rate
        return {"offers": self._price.seen, "rate": rate}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._price.seen, self._rate = list(state.get("offers", [])), state.get("rate")
