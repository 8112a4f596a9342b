"""Exact solver of TRACE's stage 2: continuations of the prefixes of one task.

V_pref is concave in every count, so the `budget` largest marginal gains are the best units.
"""

from numpy.typing import ArrayLike

from megatron_trace.allocation.solvers.gains import (
    PROBABILITY_BITS,
    Counts,
    checked_probabilities,
    prefix_gains,
    round_to_bits,
)
from megatron_trace.allocation.solvers.largest_gains import largest_gains


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
        ValueError: probabilities outside [0, 1], or the budget is more than `cap` times prefixes.
    """
    probabilities = checked_probabilities(same_outcome, budget, "same_outcome")
    largest = budget if cap is None else min(cap, budget)
    if budget > largest * len(probabilities):
        most = "any" if cap is None else cap
        raise ValueError(
            f"{len(probabilities)} prefixes of at most {most} continuations "
            f"cannot take a budget of {budget}"
        )
    q = round_to_bits(probabilities, PROBABILITY_BITS)
    return largest_gains(prefix_gains(q), budget, largest)
