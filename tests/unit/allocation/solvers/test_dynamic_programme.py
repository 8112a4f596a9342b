"""The dynamic programme against all counts, whatever the values."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.allocation.solvers.dynamic_programme import best_counts

VALUE = st.sampled_from([-np.inf, 0.0, 1.0, 2.0, -1.5]) | st.floats(-5, 5)


@given(st.integers(1, 4), st.integers(0, 4), st.integers(0, 9), st.data())
def test_no_other_counts_are_better(items, most, budget, data) -> None:
    values = np.array([[data.draw(VALUE) for _ in range(most + 1)] for _ in range(items)])
    allowed = [c for c in itertools.product(range(most + 1), repeat=items) if sum(c) == budget]
    best = max((sum(values[i, n] for i, n in enumerate(c)) for c in allowed), default=-np.inf)
    if best == -np.inf:
        with pytest.raises(ValueError, match=f"no allowed counts of {items} items sum to {budget}"):
            best_counts(values, budget)
    else:
        counts = best_counts(values, budget)
        assert counts.sum() == budget
        assert sum(values[i, n] for i, n in enumerate(counts)) == pytest.approx(best)


def test_of_equally_good_counts_an_earlier_item_gets_more() -> None:
    assert list(best_counts(np.zeros((3, 4)), 5)) == [3, 2, 0]
