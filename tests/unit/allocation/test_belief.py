"""Beta beliefs: closed forms against numerical integration."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import beta

from megatron_trace.allocation.belief import Belief, all_alike, expected_root_value, prior
from megatron_trace.allocation.value import root_value

COUNTS = st.floats(0.05, 20.0)


def expectation(function, alpha, other):
    """E f(p) of p ~ Beta(alpha, other), over quantiles, where the integrand has no poles."""
    return quad(lambda u: function(beta.ppf(u, alpha, other)), 0.0, 1.0, limit=200)[0]


@settings(max_examples=20)
@given(COUNTS, COUNTS, st.integers(0, 6))
def test_the_chance_of_equal_outcomes_is_the_moment_of_the_belief(same, other, count) -> None:
    moment = expectation(lambda q: q**count, same, other)
    assert all_alike(same, other, count) == pytest.approx(moment, abs=1e-4)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_the_root_value_is_the_expectation_of_the_papers(count) -> None:
    belief = Belief(np.array(0.7), np.array(1.6))
    exact = expectation(lambda p: float(root_value(p, count)), 0.7, 1.6)
    assert expected_root_value(belief, count) == pytest.approx(exact, abs=1e-6)


@given(st.floats(0.0, 1.0), st.integers(2, 8))
def test_a_sure_belief_has_the_papers_value(prediction, count) -> None:
    belief = prior(np.array(prediction), 1e7)
    assert expected_root_value(belief, count) == pytest.approx(
        root_value(prediction, count), abs=2e-3
    )


def test_an_unsure_prediction_of_one_half_is_worth_less_than_a_sure_one() -> None:
    unsure = expected_root_value(prior(np.array(0.5), 2.0), 5)
    assert unsure == pytest.approx(2 / 3, abs=1e-6)


def test_counts_of_an_outcome_and_of_the_other_one() -> None:
    same, other = Belief(np.array([3.0]), np.array([2.0])).same([1.0])
    assert (same, other) == (3.0, 2.0)
    same, other = Belief(np.array([3.0]), np.array([2.0])).same([0.0])
    assert (same, other) == (2.0, 3.0)
