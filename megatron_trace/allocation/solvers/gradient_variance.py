"""Rollouts of each prompt of a batch for a gradient of least variance (VIP, arXiv 2602.01601).

A prompt with success rate p and n rollouts adds to the variance of the gradient, up to a factor
common to all,

    p(1 − p) (n − 1) / n²    with the advantages of Dr. GRPO, r − mean
    p(1 − p) / (n − 1)       with those of RLOO, r − mean of the others

The paper minimises the sum under Σ n = C, lower ≤ n ≤ upper, as a convex programme (bisection on
the multiplier) and rounds greedily. Both terms are convex in n where they are used (Dr. GRPO's
from n = 3). So it is exact in whole numbers to start from the lower bounds and to give each further
rollout where it lowers the sum most. That is done here.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from megatron_trace.allocation.solvers.greedy import best_units

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

OBJECTIVES = {"rloo": 2, "dr_grpo": 3}
"""Objective -> fewest rollouts from which its variance is convex."""

RATE_MARGIN = 1e-6
"""Success rates are kept this far from 0 and 1, where no rollout lowers the variance."""


def gradient_variance(success: ArrayLike, count: ArrayLike, objective: str) -> Floats:
    """p(1−p)·(n−1)/n² (dr_grpo) or p(1−p)/(n−1) (rloo), for n ≥ 2. Broadcasts."""
    p = np.asarray(success, dtype=np.float64)
    n = np.asarray(count, dtype=np.float64)
    per_prompt = (n - 1.0) / n**2 if objective == "dr_grpo" else 1.0 / (n - 1.0)
    return p * (1.0 - p) * per_prompt


def solve_gradient_variance(
    success: ArrayLike, budget: int, *, lower: int, upper: int, objective: str = "rloo"
) -> Counts:
    """Rollouts per prompt that minimise Σ gradient_variance and sum to `budget`.

    Args:
        success: predicted success probability of each prompt, [prompts].
        lower, upper: fewest and most rollouts of a prompt.

    Returns:
        counts [prompts]; of equal gains the lower index comes first.

    Raises:
        ValueError: no counts satisfy budget and bounds, or `lower` is below where the objective is
            convex.
    """
    p = np.clip(np.asarray(success, dtype=np.float64), RATE_MARGIN, 1.0 - RATE_MARGIN)
    prompts, convex_from = len(p), OBJECTIVES[objective]
    if lower < convex_from:
        raise ValueError(f"{objective} is convex from {convex_from} rollouts, not from {lower}")
    if not lower * prompts <= budget <= upper * prompts:
        raise ValueError(
            f"{prompts} prompts with {lower} to {upper} rollouts each cannot take {budget}"
        )
    variance = gradient_variance(p[:, None], np.arange(lower, upper + 1), objective)
    # Convex terms: each further rollout lowers the variance by less, so greedy is exact.
    gains = -np.diff(variance, axis=1)
    return lower + best_units(gains, np.ones(prompts), budget - lower * prompts)
