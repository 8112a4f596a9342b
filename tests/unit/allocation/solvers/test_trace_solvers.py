"""The solvers against brute force, and against bounds where brute force cannot reach."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_trace.allocation import prefix_value, root_value, solve_prefixes, solve_roots

ROUND = st.sampled_from([0.0, 1.0, 0.5, 0.1, 0.9, 0.3, 0.7, 0.25])
SMALL = st.lists(st.floats(0, 1) | ROUND, max_size=4)
BUDGET = st.integers(0, 9)
CAP = st.none() | st.integers(0, 7)


def brute_force(values, counts_allowed, budget, value):
    """Best sum and all counts that reach it, or None where no counts sum to the budget."""
    found = [c for c in itertools.product(counts_allowed, repeat=len(values)) if sum(c) == budget]
    if not found:
        return None
    sums = [float(value(np.array(values), np.array(c)).sum()) for c in found]
    return max(sums), [c for c, s in zip(found, sums, strict=True) if s >= max(sums) - 1e-9]


@given(SMALL, BUDGET, st.integers(0, 5), CAP)
def test_roots_equal_brute_force(success, budget, floor, cap) -> None:
    most = budget if cap is None else min(cap, budget)
    best = brute_force(success, [0, *range(max(2, floor), most + 1)], budget, root_value)
    if best is None:
        with pytest.raises(ValueError, match="budget"):
            solve_roots(success, budget, floor=floor, cap=cap)
    else:
        assert tuple(solve_roots(success, budget, floor=floor, cap=cap)) in best[1]


@given(SMALL, BUDGET, CAP)
def test_prefixes_equal_brute_force(same_outcome, budget, cap) -> None:
    most = budget if cap is None else min(cap, budget)
    best = brute_force(same_outcome, range(most + 1), budget, prefix_value)
    if best is None:
        with pytest.raises(ValueError, match="budget"):
            solve_prefixes(same_outcome, budget, cap=cap)
    else:
        assert tuple(solve_prefixes(same_outcome, budget, cap=cap)) in best[1]


@given(st.lists(ROUND, min_size=1, max_size=5), BUDGET)
def test_tied_prefixes_go_to_the_lower_index(same_outcome, budget) -> None:
    best = brute_force(same_outcome, range(budget + 1), budget, prefix_value)
    assert tuple(solve_prefixes(same_outcome, budget)) == max(best[1])


def test_tied_roots_go_to_the_lower_index() -> None:
    assert list(solve_roots([0.5, 0.5, 0.5], 2)) == [2, 0, 0]
    assert list(solve_roots([0.3, 0.7, 0.3], 5)) == [3, 2, 0]
    assert list(solve_roots([0.7, 0.3, 0.3], 4, floor=4)) == [4, 0, 0]


def test_worthless_budget_is_still_spent_on_the_first() -> None:
    assert list(solve_prefixes([1.0, 1.0, 0.0], 5)) == [4, 0, 1]
    assert solve_roots([0.0, 1.0], 5).sum() == 5


def test_nearest_to_half_is_not_always_best_for_one_continuation() -> None:
    # A success that was predicted to fail is the better bet than a coin flip.
    assert list(solve_prefixes([0.5, 0.1], 1)) == [0, 1]


@pytest.mark.parametrize("values", [[-0.1], [1.1], [float("nan")], [[0.5]]])
def test_what_is_no_probability_is_refused(values) -> None:
    for solve in (solve_roots, solve_prefixes):
        with pytest.raises(ValueError, match=r"probabilities|dimension"):
            solve(values, 2)


def test_a_negative_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        solve_roots([0.5], -1)


def largest_gains(gains, budget):
    return float(np.sort(gains.ravel())[::-1][:budget].sum())


# An example takes a tenth of a second.
@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 5]), st.sampled_from([None, 12]))
def test_large_roots_are_within_one_rollouts_gain_of_the_concave_bound(seed, floor, cap) -> None:
    rng = np.random.default_rng(seed)
    success, budget = rng.beta(0.5, 0.5, 400), 3000
    counts = solve_roots(success, budget, floor=floor, cap=cap)
    assert counts.sum() == budget
    assert np.all((counts == 0) | (counts >= floor))
    # The envelope: the floor's value spread evenly over its rollouts, then single gains.
    values = np.stack([root_value(success, m) for m in range(cap or 200)], axis=1)
    gains = np.diff(values, axis=1)
    gains[:, :floor] = values[:, [floor]] / floor
    bound = largest_gains(gains, budget)
    assert bound - root_value(success, counts).sum() <= gains.max() + 1e-9


@given(st.integers(0, 2**32 - 1))
def test_large_prefixes_take_the_largest_gains(seed) -> None:
    same = np.random.default_rng(seed).random(300)
    counts = solve_prefixes(same, 2000)
    gains = same[:, None] ** np.arange(2000) * (1 - same[:, None])
    assert prefix_value(same, counts).sum() == pytest.approx(largest_gains(gains, 2000), rel=1e-9)
    assert counts.sum() == 2000
