"""Exact allocation of whole units by dynamic programming, for any values."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def best_counts(values: Floats, budget: int) -> Counts:
    """Units n_i of each item that maximise Σ values[i, n_i] under Σ n_i = budget.

    Takes items · units · budget additions and a table of items · budget numbers.

    Args:
        values: value of 0, 1, ... units of each item, [items, units]; −inf where a count is not
            allowed.

    Returns:
        counts [items]; of equally good counts those that give an earlier item more.

    Raises:
        ValueError: no allowed counts sum to the budget.
    """
    best = _best_of_rest(values, budget)
    items = len(values)
    if best[0, budget] == -np.inf:
        raise ValueError(f"no allowed counts of {items} items sum to {budget}")
    counts, left = np.zeros(items, dtype=np.int64), budget
    for item in range(items):
        most = min(left, values.shape[1] - 1)
        own = values[item, : most + 1]
        of_rest = best[item + 1, left - most : left + 1][::-1]
        reached = own + of_rest
        # argmax takes the first of equal values. Reversed, the first is the largest count.
        counts[item] = most - reached[::-1].argmax()
        left -= int(counts[item])
    return counts


def _best_of_rest(values: Floats, budget: int) -> Floats:
    """Best value of the items from i on with exactly b units, [items + 1, budget + 1].

    From the last item up: the best value of the items from i on with b units is the largest over n
    of values[i, n] plus that of the items from i + 1 on with b − n units. Without items, 0 units
    are worth 0 and no other number can be spent.
    """
    items = len(values)
    best = np.full((items + 1, budget + 1), -np.inf)
    best[items, 0] = 0.0
    for item in reversed(range(items)):
        allowed = np.flatnonzero(values[item, : budget + 1] > -np.inf)
        for units in allowed:
            # One count n for all budgets b at once: a shift of the next row by n.
            of_rest = best[item + 1, : budget + 1 - units]
            found = best[item, units:]
            np.maximum(found, of_rest + values[item, units], out=found)
    return best
