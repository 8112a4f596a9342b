"""Exact solver of TRACE's stage 1: bare rollouts of the tasks of a pool.

A root gets 0 or at least `floor` rollouts, so V_root jumps from 0 to the floor and greedy choice
is not exact. Two facts make the problem small all the same:

- V_root falls with |v − ½| at every count, so some best solution uses just the a roots nearest ½.
- The value F(a) of the best solution with a active roots is concave in a. (Move units between a
  solution for a+1 roots and one for a−1. Each move makes two counts of one concave function more
  equal.)

So climbing from any a to where F stops rising finds the optimum, at any size.
"""

from bisect import bisect_left
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from megatron_trace.allocation.solvers.gains import (
    PROBABILITY_BITS,
    Counts,
    Floats,
    checked_probabilities,
    root_gains,
    round_to_bits,
)
from megatron_trace.allocation.solvers.largest_gains import UnitsAtPrice, largest_gains, narrowed
from megatron_trace.allocation.value import root_value

VALUE_TOLERANCE = 1e-14
"""Sums of values that differ by less, relatively, count as equal: only rounding separates them."""


def solve_roots(
    success: ArrayLike, budget: int, *, floor: int = 2, cap: int | None = None
) -> Counts:
    """Bare rollouts per root that maximise Σ V_root (arXiv 2606.11119, stage 1).

    Args:
        success: predicted success probability of each root, shape [roots], in [0, 1].
        budget: rollouts to spend, exactly.
        floor: a root gets none or at least max(2, floor).
        cap: a root gets at most this many; None for no limit.

    Returns:
        counts of shape [roots]; of roots equally far from ½, and of equal gains, the lower index
        comes first.

    Raises:
        ValueError: probabilities outside [0, 1], or no counts satisfy budget, floor and cap.
    """
    probabilities = checked_probabilities(success, budget, "success")
    floor = max(2, floor)
    largest = budget if cap is None else min(cap, budget)
    if budget == 0:
        return np.zeros(len(probabilities), dtype=np.int64)
    fewest = -(-budget // largest) if largest > 0 else 1
    most = min(len(probabilities), budget // floor)
    if largest < floor or fewest > most:
        limit = "any" if cap is None else cap
        raise ValueError(
            f"no counts of 0 or {floor} to {limit} rollouts over "
            f"{len(probabilities)} roots sum to a budget of {budget}"
        )
    # V_root is the same for v and 1 − v. With the rarer outcome's probability, which is at most
    # ½, the nearest to ½ is simply the largest.
    rarer = round_to_bits(np.minimum(probabilities, 1.0 - probabilities), PROBABILITY_BITS)
    solutions = _ActiveRoots(rarer, budget, floor, largest)
    start = solutions.relaxed()
    return solutions.counts(_first_maximum(solutions.rises, fewest, most, start))


class _ActiveRoots:
    """The best solutions with a given number of active roots, those nearest ½."""

    def __init__(self, rarer: Floats, budget: int, floor: int, largest: int) -> None:
        self._rarer, self._budget = rarer, budget
        self._floor, self._largest = floor, largest
        self._order = np.argsort(-rarer, kind="stable")
        self._solved: dict[int, tuple[float, Counts]] = {}

    def counts(self, active: int) -> Counts:
        """Rollouts of all roots, [roots], of which `active` get any."""
        return self._solve(active)[1]

    def rises(self, active: int) -> bool:
        """Whether one more active root has a larger value."""
        here, above = self._solve(active)[0], self._solve(active + 1)[0]
        return above - here > VALUE_TOLERANCE * max(1.0, above)

    def _solve(self, active: int) -> tuple[float, Counts]:
        """Value and counts; every active root has the floor, the rest are the largest gains."""
        if active not in self._solved:
            # Sorted by index again, so that of equal gains the lower index comes first.
            chosen = np.sort(self._order[:active])
            gains = root_gains(self._rarer[chosen], self._floor)
            left = self._budget - active * self._floor
            more = largest_gains(gains, left, self._largest - self._floor)
            counts = np.zeros(len(self._rarer), dtype=np.int64)
            counts[chosen] = self._floor + more
            self._solved[active] = float(root_value(self._rarer, counts).sum()), counts
        return self._solved[active]

    def relaxed(self) -> int:
        """About how many roots the concave envelope of V_root activates: where to begin looking.

        On the envelope the first `floor` rollouts gain evenly, V_root(v, floor) / floor each. So a
        price says which roots are active and how many rollouts they get.
        """
        rarer, floor, budget = self._rarer[self._order], self._floor, self._budget
        slope = root_value(rarer, floor) / floor
        units = UnitsAtPrice(root_gains(rarer, floor), self._largest - floor)

        def active_at(price: float) -> int:
            return int(np.count_nonzero(slope >= price))

        def spent(price: float, extra: Floats | Counts) -> float:
            active = active_at(price)
            return active * floor + float(extra[:active].sum())

        dear, cheap = units.bracket(lambda price, extra: spent(price, extra) <= budget)
        dear, cheap = narrowed(
            lambda price: spent(price, units.at(price)) <= budget, dear, cheap, 1e-7
        )
        missing = (budget - spent(dear, units.at(dear))) // floor
        return min(int(active_at(dear) + missing), active_at(cheap))


def _first_maximum(rises: Callable[[int], bool], fewest: int, most: int, start: int) -> int:
    """The smallest a in [fewest, most] from which a concave function no longer rises.

    Steps from `start` double until they bracket the maximum. A bisection then finds it. So a good
    start takes two or three evaluations, each of which solves an allocation.
    """
    low, high, step = fewest, most, 1
    active = min(max(start, fewest), most)
    while low < high:
        if active < high and rises(active):
            low, active = active + 1, active + step
            if high != most:
                break
        else:
            high, active = active, active - step
            if low != fewest:
                break
        active, step = min(max(active, low), high), 2 * step
    falls_from = bisect_left(range(low, high), True, key=lambda at: not rises(at))
    return low + falls_from
