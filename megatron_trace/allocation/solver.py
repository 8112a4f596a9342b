"""Exact integer solvers of TRACE's two allocation problems.

Both maximise a sum of values under Σ counts = budget. Stage 2 is concave in every count, so the best units
are the `budget` largest gains. Stage 1 jumps from 0 to the floor f, and is exact for another reason: V_root
falls with |v − ½| at every count, so some best solution uses just the a roots nearest ½, and its value F(a)
is concave in a (move units between a solution for a+1 and one for a−1: each move equalises two counts of the
same concave function). So climbing from any a to where F stops rising finds the optimum, at any size.
"""

import heapq
from bisect import bisect_left
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from megatron_trace.allocation.value import root_value

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

PLATEAU = 1e-14
"""Sums of values that differ by less, relatively, count as equal: rounding is all that tells them apart."""


class Gains(NamedTuple):
    """What each unit more of each item gains, falling in the count of units it has.

    Attributes:
        at: gain of the next unit of the items at these indices, which have these counts of units.
        first, ratio: a geometric series first · ratio^k of each item, that is not above its gains and at
            least half of them.
    """

    at: Callable[[NDArray[np.intp] | slice, Counts], Floats]
    first: Floats
    ratio: Floats


SMALLEST = float(np.finfo(np.float64).tiny)
HEAP_UNITS = 4096
"""Units left to the heap when the bisection stops."""


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
        counts of shape [roots]; of roots equally far from ½, and of equal gains, the lower index comes first.

    Raises:
        ValueError: probabilities outside [0, 1], or no counts satisfy budget, floor and cap.
    """
    probabilities = _checked(success, budget, "success")
    floor = max(2, floor)
    largest = budget if cap is None else min(cap, budget)
    if budget == 0:
        return np.zeros(len(probabilities), dtype=np.int64)
    fewest, most = (
        -(-budget // largest) if largest > 0 else 1,
        min(len(probabilities), budget // floor),
    )
    if largest < floor or fewest > most:
        raise ValueError(
            f"no counts of 0 or {floor} to {cap if cap is not None else 'any'} rollouts over "
            f"{len(probabilities)} roots sum to a budget of {budget}"
        )
    rarer = _round_to_bits(np.minimum(probabilities, 1.0 - probabilities), 50)
    order = np.argsort(-rarer, kind="stable")

    @cache
    def with_active(active: int) -> tuple[float, Counts]:
        chosen = np.sort(order[:active])  # ties of gains go to the lower index
        counts = np.zeros(len(probabilities), dtype=np.int64)
        counts[chosen] = floor + _fill(
            _root_gains(rarer[chosen], floor), budget - active * floor, largest - floor
        )
        return float(root_value(rarer, counts).sum()), counts

    def rises(active: int) -> bool:
        here, above = with_active(active)[0], with_active(active + 1)[0]
        return above - here > PLATEAU * max(1.0, above)

    start = _relaxed_active(rarer[order], floor, budget, largest)
    return with_active(_top(rises, fewest, most, start))[1]


def solve_prefixes(same_outcome: ArrayLike, budget: int, *, cap: int | None = None) -> Counts:
    """Continuations per prefix that maximise Σ V_pref (arXiv 2606.11119, stage 2).

    Args:
        same_outcome: probability q that a continuation of each prefix ends as its rollout did,
            shape [prefixes], in [0, 1].
        budget: continuations to spend, exactly.
        cap: a prefix gets at most this many; None for no limit.

    Returns:
        counts of shape [prefixes]; of equal gains the lower index comes first.

    Raises:
        ValueError: probabilities outside [0, 1], or `cap` times the prefixes is less than the budget.
    """
    probabilities = _checked(same_outcome, budget, "same_outcome")
    largest = budget if cap is None else min(cap, budget)
    if budget > largest * len(probabilities):
        raise ValueError(
            f"{len(probabilities)} prefixes of at most {cap if cap is not None else 'any'} continuations "
            f"cannot take a budget of {budget}"
        )
    return _fill(_prefix_gains(_round_to_bits(probabilities, 50)), budget, largest)


def _checked(values: ArrayLike, budget: int, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension, not {array.ndim}")
    if not np.all((array >= 0.0) & (array <= 1.0)):
        raise ValueError(f"{name} must hold probabilities in [0, 1]")
    if budget < 0:
        raise ValueError(f"the budget must not be negative, not {budget}")
    return array


def _round_to_bits(values: Floats, bits: int) -> Floats:
    """Round the mantissa, so that 0.3 and 1 − 0.7 tie as they do in exact arithmetic, and gains likewise."""
    dropped = 52 - bits
    words = np.ascontiguousarray(values, dtype=np.float64).view(np.int64)
    return ((words + (1 << (dropped - 1))) >> dropped << dropped).view(np.float64)


def _prefix_gains(q: Floats) -> Gains:
    """(1−q) q^k: one continuation more on top of k flips the outcome that k repeated."""
    log_q = _log(q)

    def at(items: NDArray[np.intp] | slice, k: Counts) -> Floats:
        return _round_to_bits((1.0 - q[items]) * _power(log_q[items], k), 36)

    return Gains(at, first=1.0 - q, ratio=q)


def _root_gains(v: Floats, floor: int) -> Gains:
    """v(1−v)[(1−v)^{m−1} + v^{m−1}]: one rollout more on top of m = floor + k, for v ≤ ½."""
    spread: Floats = v * (1.0 - v)
    log_v, log_rest = _log(v), _log(1.0 - v)

    def at(items: NDArray[np.intp] | slice, k: Counts) -> Floats:
        powers = _power(log_rest[items], floor - 1 + k) + _power(log_v[items], floor - 1 + k)
        return _round_to_bits(spread[items] * powers, 36)

    return Gains(at, first=spread * _power(log_rest, np.full(len(v), floor - 1)), ratio=1.0 - v)


LOG_ZERO = -1e6
"""Stands for log 0: its exponential is 0, and 0 times it is 0, as 0^0 = 1 asks."""


def _log(values: Floats) -> Floats:
    return np.log(values, out=np.full_like(values, LOG_ZERO), where=values > 0.0)


def _power(log_base: Floats, exponent: Counts) -> Floats:
    return np.exp(log_base * exponent)


class Demand:
    """How many units of each item gain at least a price, at most `cap`."""

    def __init__(self, gains: Gains, cap: int):
        self._gains, self._cap = gains, cap
        self._log_first, self._log_ratio = _log(gains.first), np.minimum(_log(gains.ratio), -1e-300)

    def _series(self, price: float) -> Floats:
        """By the geometric series: never too many, and never more than one too few."""
        return np.clip(
            np.floor((np.log(price) - self._log_first) / self._log_ratio) + 1.0, 0, self._cap
        )

    def at(self, price: float) -> Counts:
        """The gains themselves have the last word, so that rounding in the series decides nothing."""
        counts, everything = self._series(price).astype(np.int64), slice(None)
        counts -= (counts > 0) & (self._gains.at(everything, np.maximum(counts - 1, 0)) < price)
        counts += (counts < self._cap) & (self._gains.at(everything, counts) >= price)
        return counts

    def bracket(self, affordable: Callable[[float, Floats], bool]) -> tuple[float, float]:
        """Two prices, of which the first is affordable; the second only where everything is."""
        dear, cheap = _bracket(
            lambda price: affordable(price, self._series(price)), 1.0, SMALLEST, 0.01
        )
        return 2.5 * dear, max(cheap / 1.1, SMALLEST)


def _fill(gains: Gains, budget: int, cap: int) -> Counts:
    """The `budget` largest gains, at most `cap` of each item: a price by bisection, the last units by a heap."""
    if budget == 0 or cap == 0:
        return np.zeros(len(gains.first), dtype=np.int64)
    demand = Demand(gains, cap)
    dear, cheap = demand.bracket(lambda price, counts: counts.sum() <= budget)
    taken, wanted = demand.at(dear), demand.at(cheap)
    if wanted.sum() <= budget:  # what is left gains nothing anywhere: to the lowest indices
        left = np.minimum(np.cumsum(cap - wanted), budget - wanted.sum())
        return wanted + np.diff(left, prepend=0)
    while dear / cheap > 1.0 + 1e-9 and wanted.sum() - taken.sum() > HEAP_UNITS:
        price = (dear * cheap) ** 0.5
        counts = demand.at(price)
        if counts.sum() <= budget:
            dear, taken = price, counts
        else:
            cheap, wanted = price, counts
    return _take_best(gains, taken, wanted, budget - int(taken.sum()))


def _take_best(gains: Gains, taken: Counts, wanted: Counts, units: int) -> Counts:
    """Add the `units` largest gains between `taken` and `wanted`, one by one."""
    unmet = np.flatnonzero(wanted > taken)
    if np.all(wanted[unmet] - taken[unmet] == 1):
        best = np.argsort(-gains.at(unmet, taken[unmet]), kind="stable")[:units]
        taken[unmet[best]] += 1
        return taken
    heap = list(zip((-gains.at(unmet, taken[unmet])).tolist(), unmet.tolist(), strict=True))
    heapq.heapify(heap)
    for _ in range(units):
        item = heap[0][1]
        taken[item] += 1
        if taken[item] < wanted[item]:
            next_gain = gains.at(np.array([item]), taken[item : item + 1])
            heapq.heapreplace(heap, (-float(next_gain[0]), item))
        else:
            heapq.heappop(heap)
    return taken


def _bracket(
    affordable: Callable[[float], bool], dear: float, cheap: float, tolerance: float
) -> tuple[float, float]:
    """Halve the ratio of a price that is affordable to one that is not, until it is 1 + tolerance."""
    while dear / cheap > 1.0 + tolerance:
        price = float(np.sqrt(dear) * np.sqrt(cheap))
        dear, cheap = (price, cheap) if affordable(price) else (dear, price)
    return dear, cheap


def _relaxed_active(rarer: Floats, floor: int, budget: int, largest: int) -> int:
    """About how many roots the concave envelope activates: where to start looking. `rarer` falls."""
    slope = root_value(rarer, floor) / floor
    demand = Demand(_root_gains(rarer, floor), largest - floor)

    def spent(price: float, extra: Floats | Counts) -> float:
        active = np.count_nonzero(slope >= price)
        return active * floor + float(extra[:active].sum())

    dear, cheap = demand.bracket(lambda price, extra: spent(price, extra) <= budget)
    dear, cheap = _bracket(
        lambda price: spent(price, demand.at(price)) <= budget, dear, cheap, 1e-7
    )
    missing = (budget - spent(dear, demand.at(dear))) // floor
    return min(
        int(np.count_nonzero(slope >= dear) + missing), int(np.count_nonzero(slope >= cheap))
    )


def _top(rises: Callable[[int], bool], fewest: int, most: int, start: int) -> int:
    """The smallest a in [fewest, most] from which a concave function no longer rises, near `start`."""
    low, high, step = fewest, most, 1
    a = min(max(start, fewest), most)
    while low < high:  # gallop from the start until the top is bracketed
        if a < high and rises(a):
            low, a = a + 1, a + step
            if high != most:
                break
        else:
            high, a = a, a - step
            if low != fewest:
                break
        a, step = min(max(a, low), high), 2 * step
    return low + bisect_left(range(low, high), True, key=lambda active: not rises(active))
