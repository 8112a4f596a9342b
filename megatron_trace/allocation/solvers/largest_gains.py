"""The `budget` largest marginal gains of many items, at any size.

A price is found by bisection at which about `budget` units gain at least the price. A heap then
takes the last units one by one. So a million units cost some dozens of passes over the items
instead of a million steps of a heap.
"""

import heapq
from collections.abc import Callable

import numpy as np

from megatron_trace.allocation.solvers.gains import Counts, Floats, Gains, log

HIGHEST_PRICE = 1.0
"""No unit gains more, as values are probabilities."""

LOWEST_PRICE = float(np.finfo(np.float64).tiny)
"""Gains below count as 0."""

HEAP_UNITS = 4096
"""Units left to the heap when the bisection stops."""


class UnitsAtPrice:
    """How many units of each item gain at least a price, at most `cap` of each."""

    def __init__(self, gains: Gains, cap: int) -> None:
        """Prepare the geometric series of `gains`."""
        self._gains, self._cap = gains, cap
        self._log_first = log(gains.first)
        # A ratio of 1 has the logarithm 0, and the series is divided by the logarithm.
        self._log_ratio = np.minimum(log(gains.ratio), -1e-300)

    def by_series(self, price: float) -> Floats:
        """Units whose series is at least `price`: one logarithm instead of a search, [items].

        A gain lies between its series and the series of the unit before. So the number is never
        too large, and at most one too small.
        """
        exponent = np.floor((np.log(price) - self._log_first) / self._log_ratio)
        return np.clip(exponent + 1.0, 0, self._cap)

    def at(self, price: float) -> Counts:
        """Units whose gain is at least `price`, [items]."""
        counts = self.by_series(price).astype(np.int64)
        everything = slice(None)
        # The series may be one unit off. The gains themselves decide, so that rounding in the
        # logarithm never does.
        last_gain = self._gains.at(everything, np.maximum(counts - 1, 0))
        counts -= (counts > 0) & (last_gain < price)
        next_gain = self._gains.at(everything, counts)
        counts += (counts < self._cap) & (next_gain >= price)
        return counts

    def bracket(self, affordable: Callable[[float, Floats], bool]) -> tuple[float, float]:
        """Two prices: the first is affordable, the second is not (or all units are affordable).

        Args:
            affordable: (price, units of each item) -> whether the budget pays for these units.
        """
        dear, cheap = narrowed(
            lambda price: affordable(price, self.by_series(price)),
            HIGHEST_PRICE,
            LOWEST_PRICE,
            0.01,
        )
        # The series was asked, and gains are between the series and twice the series. So twice
        # the dear price is affordable for the gains too, and the cheap price is not. The rest of
        # both factors is for rounding.
        return 2.5 * dear, max(cheap / 1.1, LOWEST_PRICE)


def largest_gains(gains: Gains, budget: int, cap: int) -> Counts:
    """Units of each item that make up the `budget` largest gains, at most `cap` of each, [items].

    Of equal gains the lower index comes first.
    """
    if budget == 0 or cap == 0:
        return np.zeros(len(gains.first), dtype=np.int64)
    units = UnitsAtPrice(gains, cap)
    dear, cheap = units.bracket(lambda price, counts: counts.sum() <= budget)
    taken, wanted = units.at(dear), units.at(cheap)
    if wanted.sum() <= budget:
        # What is left gains nothing anywhere, and goes to the lowest indices.
        room = np.cumsum(cap - wanted)
        left = np.minimum(room, budget - wanted.sum())
        return wanted + np.diff(left, prepend=0)
    # The loop ends at a ratio of 1 + 1e-9 as well: of many items with equal gains, no price takes
    # only a few.
    while dear / cheap > 1.0 + 1e-9 and wanted.sum() - taken.sum() > HEAP_UNITS:
        price = (dear * cheap) ** 0.5
        counts = units.at(price)
        if counts.sum() <= budget:
            dear, taken = price, counts
        else:
            cheap, wanted = price, counts
    return _take_best(gains, taken, wanted, budget - int(taken.sum()))


def _take_best(gains: Gains, taken: Counts, wanted: Counts, units: int) -> Counts:
    """Add the `units` largest gains between `taken` and `wanted`, one by one."""
    unmet = np.flatnonzero(wanted > taken)
    next_gain = gains.at(unmet, taken[unmet])
    if np.all(wanted[unmet] - taken[unmet] == 1):
        best = np.argsort(-next_gain, kind="stable")[:units]
        taken[unmet[best]] += 1
        return taken
    heap = list(zip((-next_gain).tolist(), unmet.tolist(), strict=True))
    heapq.heapify(heap)
    for _ in range(units):
        item = heap[0][1]
        taken[item] += 1
        if taken[item] < wanted[item]:
            gain = gains.at(np.array([item]), taken[item : item + 1])
            heapq.heapreplace(heap, (-float(gain[0]), item))
        else:
            heapq.heappop(heap)
    return taken


def narrowed(
    affordable: Callable[[float], bool], dear: float, cheap: float, tolerance: float
) -> tuple[float, float]:
    """Narrow an affordable price `dear` and one that is not, until their ratio is 1 + tolerance."""
    while dear / cheap > 1.0 + tolerance:
        price = float(np.sqrt(dear) * np.sqrt(cheap))
        if affordable(price):
            dear = price
        else:
            cheap = price
    return dear, cheap
