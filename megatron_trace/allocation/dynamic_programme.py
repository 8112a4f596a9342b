"""Exact allocation of whole units by dynamic programming, whatever the values."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def best_counts(values: Floats, budget: int) -> Counts:
    """Units n_i of each item that maximise Σ values[i, n_i] under Σ n_i = budget.

    The best value of the items from i on with b units is the largest over n of values[i, n] plus that of the items from
    i + 1 on with b − n. That takes items · units · budget additions and a table of items · budget numbers.

    Args:
        values: of 0, 1, ... units of each item, [items, units]; −inf where a count is not allowed.

    Returns:
        counts [items]; of equally good ones those that give an earlier item more.

    Raises:
        ValueError: no allowed counts sum to the budget.
    """
    items = len(values)
    best = np.full((items + 1, budget + 1), -np.inf)
    best[items, 0] = 0.0
    for item in reversed(range(items)):
        for n in np.flatnonzero(values[item, : budget + 1] > -np.inf):
            rest = best[item + 1, : budget + 1 - n]
            np.maximum(best[item, n:], rest + values[item, n], out=best[item, n:])
    if best[0, budget] == -np.inf:
        raise ValueError(f"no allowed counts of {items} items sum to {budget}")
    counts, left = np.zeros(items, dtype=np.int64), budget
    for item in range(items):
        most = min(left, values.shape[1] - 1)
        reached = values[item, : most + 1] + best[item + 1, left - most : left + 1][::-1]
        counts[item] = most - reached[::-1].argmax()
        left -= int(counts[item])
    return counts
