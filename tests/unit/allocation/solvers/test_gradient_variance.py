"""The split of least variance against all splits, and against the convex programme it solves in
whole numbers.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from megatron_trace.allocation.solvers.gradient_variance import (
    OBJECTIVES,
    RATE_MARGIN,
    gradient_variance,
    solve_gradient_variance,
)

OBJECTIVE = st.sampled_from(sorted(OBJECTIVES))


def total(success, counts, objective):
    return float(gradient_variance(np.array(success), np.array(counts), objective).sum())


def test_the_terms_are_the_papers() -> None:
    # p = 0.2, n = 5: 0.16 * 4 / 25 and 0.16 / 4
    assert gradient_variance(0.2, 5, "dr_grpo") == pytest.approx(0.0256)
    assert gradient_variance(0.2, 5, "rloo") == pytest.approx(0.04)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_they_are_the_variance_of_the_estimate_of_one_prompt(objective) -> None:
    """Of (1/n) Σ A z over n rollouts, z an independent standard normal score for each."""
    p, n, rng = 0.3, 5, np.random.default_rng(0)
    reward = (rng.random((400_000, n)) < p).astype(float)
    mean = reward.mean(axis=1, keepdims=True)
    advantage = reward - (mean if objective == "dr_grpo" else (n * mean - reward) / (n - 1))
    estimate = (advantage * rng.normal(size=reward.shape)).mean(axis=1)
    assert estimate.var() == pytest.approx(float(gradient_variance(p, n, objective)), rel=0.02)


@given(
    st.lists(st.floats(RATE_MARGIN, 1 - RATE_MARGIN), min_size=1, max_size=4),
    st.integers(0, 8),
    OBJECTIVE,
)
def test_no_other_split_has_less_variance(success, more, objective) -> None:
    lower, upper = 3, 7
    budget = min(lower * len(success) + more, upper * len(success))
    counts = solve_gradient_variance(success, budget, lower=lower, upper=upper, objective=objective)
    splits = itertools.product(range(lower, upper + 1), repeat=len(success))
    least = min(total(success, split, objective) for split in splits if sum(split) == budget)
    assert counts.sum() == budget and lower <= counts.min() and counts.max() <= upper
    assert total(success, counts, objective) == pytest.approx(least, abs=1e-9)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_at_size_it_is_near_the_convex_programme(objective) -> None:
    success = np.random.default_rng(0).beta(0.5, 0.5, 12)
    budget, lower, upper = 96, 4, 32
    counts = solve_gradient_variance(success, budget, lower=lower, upper=upper, objective=objective)
    relaxed = minimize(
        lambda n: gradient_variance(success, n, objective).sum(),
        np.full(12, 8.0),
        bounds=[(lower, upper)] * 12,
        constraints={"type": "eq", "fun": lambda n: n.sum() - budget},
        method="SLSQP",
    )
    assert np.abs(counts - relaxed.x).max() < 1.5
    assert relaxed.fun - 1e-6 <= total(success, counts, objective) <= 1.01 * relaxed.fun


def test_equal_prompts_share_equally_and_certain_ones_get_the_least() -> None:
    assert list(solve_gradient_variance([0.5] * 4, 32, lower=4, upper=32)) == [8] * 4
    assert list(solve_gradient_variance([0.0, 0.5, 1.0], 24, lower=4, upper=32)) == [4, 16, 4]


@pytest.mark.parametrize(
    ("lower", "budget", "objective"),
    [(1, 8, "rloo"), (2, 8, "dr_grpo"), (4, 7, "rloo"), (4, 17, "rloo")],
)
def test_what_cannot_be_split_is_refused(lower, budget, objective) -> None:
    with pytest.raises(ValueError, match=r"convex from|cannot take"):
        solve_gradient_variance([0.5, 0.5], budget, lower=lower, upper=8, objective=objective)
