"""Contrast as expected variance, for graded rewards, and the solver of allocations that pay by cost.

With terminal rewards in [0, 1] instead of {0, 1}, what a group can teach is the variance of its rewards. The paper
(arXiv 2606.11119) has 0/1 rewards; this is ours. A prediction v says how large one reward's variance may be: v(1 − v).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def root_variance(success: ArrayLike, count: ArrayLike) -> Floats:
    """Expected variance of m independent rewards: v(1−v)(1 − 1/m) for m ≥ 2, else 0. Broadcasts."""
    v, m = np.asarray(success, dtype=np.float64), np.asarray(count)
    return np.where(m >= 2, v * (1.0 - v) * (1.0 - 1.0 / np.maximum(m, 1)), 0.0)


def prefix_variance(success: ArrayLike, reward: ArrayLike, count: ArrayLike) -> Floats:
    """Expected variance of a rollout's reward r and k continuations': [k(r−v)² + k²v(1−v)] / (k+1)². Broadcasts."""
    v, r = np.asarray(success, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    k = np.asarray(count, dtype=np.float64)
    return (k * (r - v) ** 2 + k**2 * v * (1.0 - v)) / (k + 1.0) ** 2


def solve_root_variance(
    success: ArrayLike, budget: int, *, floor: int, cap: int | None = None
) -> Counts:
    """Bare rollouts per root, 0 or `floor` to `cap`, that maximise Σ root_variance and sum to `budget`.

    As for V_root, the a roots nearest ½ are the active ones and the value is concave in a; see `solver.py`.

    Raises:
        ValueError: no counts satisfy budget, floor and cap.
    """
    v = np.asarray(success, dtype=np.float64)
    floor, largest = max(2, floor), budget if cap is None else min(cap, budget)
    order = np.argsort(np.abs(v - 0.5), kind="stable")
    fewest, most = -(-budget // max(largest, 1)), min(len(v), budget // floor)
    if largest < floor or not 1 <= fewest <= most:
        raise ValueError(
            f"no counts of 0 or {floor} to {cap} rollouts over {len(v)} roots sum to {budget}"
        )

    def with_active(active: int) -> tuple[float, Counts]:
        chosen = np.sort(order[:active])
        more = np.arange(floor, min(largest, budget - (active - 1) * floor))
        gains = (v * (1.0 - v))[chosen, None] / (more * (more + 1.0))
        counts = np.zeros(len(v), dtype=np.int64)
        counts[chosen] = floor + best_units(gains, np.ones(active), budget - active * floor)
        return float(root_variance(v, counts).sum()), counts

    while most - fewest > 2:  # concave: a third of the range goes each time
        third = (most - fewest) // 3
        lower, upper = fewest + third, most - third
        if with_active(lower)[0] < with_active(upper)[0]:
            fewest = lower + 1
        else:
            most = upper
    return max(
        (with_active(active) for active in range(fewest, most + 1)), key=lambda found: found[0]
    )[1]


def best_units(gains: Floats, cost: Floats, budget: float) -> Counts:
    """Units of each item, taken by falling gain per cost as long as they fit into the budget.

    Exact where all costs are equal and gains fall with each unit; else the greedy solution of a knapsack. A unit
    that gains more than the one before it counts as much as that.

    Args:
        gains: of the k-th unit of each item, [items, units].
        cost: of a unit of each item, [items].

    Returns:
        counts [items]; of equal gains the lower index comes first.
    """
    falling = np.minimum.accumulate(gains, axis=1) / cost[:, None]
    item = np.repeat(np.arange(len(cost)), gains.shape[1])
    order = np.argsort(-falling.ravel(), kind="stable")
    fits = np.cumsum(cost[item[order]]) <= budget * (1.0 + 1e-12)
    return np.bincount(item[order[fits]], minlength=len(cost)).astype(np.int64)
