"""What one rollout more gains: V_root and V_pref of TRACE (arXiv 2606.11119) as marginal gains."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Items = NDArray[np.intp] | slice

LOG_ZERO = -1e6
"""Stands for log 0. Its exponential is 0, and 0 · LOG_ZERO is 0, as 0^0 = 1 requires."""

PROBABILITY_BITS = 50
"""Bits of mantissa that probabilities keep, so that 0.3 and 1 − 0.7 tie as in exact arithmetic."""

GAIN_BITS = 36
"""Bits of mantissa that gains keep, so that gains tie where their probabilities do."""


class Gains(NamedTuple):
    """The gain of each further unit of each item; gains of an item never rise.

    Attributes:
        at: (items, counts) -> gain of the next unit of these items, given the units they have.
        first, ratio: a geometric series first · ratio^k for each item, [items]. The gain of the
            unit on top of k is at least that, and at most series / ratio and 2 · series.
    """

    at: Callable[[Items, Counts], Floats]
    first: Floats
    ratio: Floats


def prefix_gains(q: Floats) -> Gains:
    """Gains of V_pref(q, k) = 1 − q^k: (1−q) q^k, one continuation more on top of k; q [items]."""
    log_q = log(q)

    def at(items: Items, count: Counts) -> Floats:
        repeated = _power(log_q[items], count)
        return round_to_bits((1.0 - q[items]) * repeated, GAIN_BITS)

    return Gains(at, first=1.0 - q, ratio=q)


def root_gains(v: Floats, floor: int) -> Gains:
    """Gains of V_root on top of m = floor + k rollouts: v(1−v)[(1−v)^{m−1} + v^{m−1}].

    Args:
        v: probability of the rarer outcome, at most ½, [items].
    """
    spread: Floats = v * (1.0 - v)
    log_v, log_rest = log(v), log(1.0 - v)

    def at(items: Items, count: Counts) -> Floats:
        exponent = floor - 1 + count
        powers = _power(log_rest[items], exponent) + _power(log_v[items], exponent)
        return round_to_bits(spread[items] * powers, GAIN_BITS)

    first = spread * _power(log_rest, np.full(len(v), floor - 1))
    return Gains(at, first=first, ratio=1.0 - v)


def round_to_bits(values: Floats, bits: int) -> Floats:
    """`values`, at least 0, with the mantissa rounded to `bits` of its 52 bits."""
    dropped = 52 - bits
    words = np.ascontiguousarray(values, dtype=np.float64).view(np.int64)
    half = 1 << (dropped - 1)
    return ((words + half) >> dropped << dropped).view(np.float64)


def log(values: Floats) -> Floats:
    """The natural logarithm, LOG_ZERO at 0."""
    # −inf would do for positive exponents, but −inf · 0 is nan.
    return np.log(values, out=np.full_like(values, LOG_ZERO), where=values > 0.0)


def _power(log_base: Floats, exponent: Counts) -> Floats:
    return np.exp(log_base * exponent)


def checked_probabilities(values: ArrayLike, budget: int, name: str) -> Floats:
    """`values` as an array [items].

    Raises:
        ValueError: `values` are not probabilities in one dimension, or the budget is negative.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension, not {array.ndim}")
    if not np.all((array >= 0.0) & (array <= 1.0)):
        raise ValueError(f"{name} must hold probabilities in [0, 1]")
    if budget < 0:
        raise ValueError(f"the budget must not be negative, not {budget}")
    return array
