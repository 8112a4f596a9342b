"""Greedy spending of a budget: units by falling gain per cost."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

ROUNDING = 1e-12
"""Relative excess of a sum of costs over the budget that counts as rounding."""


def best_units(gains: Floats, cost: Floats, budget: float) -> Counts:
    """Units of each item, taken by falling gain per cost as long as they fit into the budget.

    The result is exact where all costs are equal and the gains of each item fall. Otherwise it is
    the greedy solution of a knapsack problem. A gain above the previous gain of the same item is
    cut to that gain.

    Args:
        gains: gain of the k-th unit of each item, [items, units].
        cost: cost of one unit of each item, [items].
        budget: what all units together may cost.

    Returns:
        counts [items]; of equal gains the lower index comes first.
    """
    items, units = gains.shape
    # Without the cut, a late unit with a large gain could be counted while an earlier unit of the
    # same item is not: counts say how many units an item gets, not which.
    per_cost = np.minimum.accumulate(gains, axis=1) / cost[:, None]
    best_first = np.argsort(-per_cost.ravel(), kind="stable")
    item_of_unit = np.repeat(np.arange(items), units)
    chosen = item_of_unit[best_first]
    fits = np.cumsum(cost[chosen]) <= budget * (1.0 + ROUNDING)
    return np.bincount(chosen[fits], minlength=items).astype(np.int64)
