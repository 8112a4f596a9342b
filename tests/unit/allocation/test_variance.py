"""Expected variance as contrast, against enumeration and brute force."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.allocation.variance import (
    best_units,
    prefix_variance,
    root_variance,
    solve_root_variance,
)


def enumerated(v, count, fixed=()):
    """Expected population variance of `count` 0/1 rewards and the `fixed` ones."""
    total = 0.0
    for rewards in product([0, 1], repeat=count):
        probability = np.prod([v if r else 1 - v for r in rewards]) if rewards else 1.0
        total += probability * np.var([*fixed, *rewards])
    return total


@pytest.mark.parametrize("v", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_expected_variances_are_those_of_all_outcomes(v, count) -> None:
    assert root_variance(v, count) == pytest.approx(enumerated(v, count))
    for reward in (0.0, 1.0, 0.25):
        assert prefix_variance(v, reward, count) == pytest.approx(enumerated(v, count, (reward,)))


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
    st.integers(2, 9),
    st.integers(2, 3),
    st.sampled_from([None, 4]),
)
def test_roots_equal_brute_force(success, budget, floor, cap) -> None:
    allowed = [0, *range(floor, (cap or budget) + 1)]
    sums = [
        float(root_variance(success, counts).sum())
        for counts in product(allowed, repeat=len(success))
        if sum(counts) == budget
    ]
    if not sums:
        with pytest.raises(ValueError, match="no counts"):
            solve_root_variance(success, budget, floor=floor, cap=cap)
        return
    counts = solve_root_variance(success, budget, floor=floor, cap=cap)
    assert counts.sum() == budget and set(counts.tolist()) <= set(allowed)
    assert root_variance(success, counts).sum() == pytest.approx(max(sums))


def test_units_are_taken_by_gain_per_cost_while_they_fit() -> None:
    gains = np.array([[0.6, 0.3], [0.5, 0.4]])
    assert best_units(gains, np.array([1.0, 1.0]), 3).tolist() == [1, 2]
    assert best_units(gains, np.array([3.0, 1.0]), 4).tolist() == [0, 2]
    assert best_units(gains, np.array([3.0, 1.0]), 5).tolist() == [1, 2]
