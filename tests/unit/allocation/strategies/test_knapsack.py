import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from megatron_trace.allocation import Allocator, make_strategy
from megatron_trace.allocation.strategies.knapsack import knapsack_value
from megatron_trace.config import AllocationConfig, SettingError
from megatron_trace.tree import ROOT
from tests.unit.allocation.outcomes import half, never, sample_step
from tests.unit.allocation.solvers.test_trace_solvers import brute_force
from tests.unit.allocation.views import planning_view, roots


def settings(budget=12, pool=4, group=4, **options):
    return AllocationConfig(
        strategy="knapsack", budget=budget, pool=pool, group=group, options={"knapsack": options}
    )


def counts(plan):
    return [anchors.get(ROOT, 0) for anchors in plan]


def test_the_value_is_the_papers() -> None:
    # p = 0.4, N = 3: [1 - 0.064 - 0.216] * 0.4 * 0.36
    assert knapsack_value(0.4, 3) == pytest.approx(0.72 * 0.144)
    assert list(knapsack_value([0.0, 1.0, 0.5], 4)) == [0.0, 0.0, pytest.approx(0.875 * 0.125)]
    assert list(knapsack_value(0.5, [0, 1])) == [0.0, 0.0]


def test_a_hard_task_is_worth_more_than_an_easy_one_as_far_from_half() -> None:
    assert counts(
        make_strategy(settings(budget=4)).plan(planning_view(roots(0.8, 0.2), total=4))
    ) == [
        0,
        4,
    ]


@given(
    st.lists(st.floats(0.01, 0.99) | st.sampled_from([0.5, 0.3, 0.1]), min_size=1, max_size=4),
    st.integers(2, 10),
    st.integers(2, 3),
    st.integers(5, 8),
)
def test_choosing_among_candidates_equals_brute_force(success, budget, lower, upper) -> None:
    assume(lower <= budget <= upper * len(success))
    strategy = make_strategy(settings(budget=budget, pool=len(success), lower=lower, upper=upper))
    found = counts(strategy.plan(planning_view(roots(*success), total=budget)))
    best = brute_force(success, [0, *range(lower, upper + 1)], budget, knapsack_value)
    assert tuple(found) in best[1]


@given(
    st.lists(st.floats(0.01, 0.99), min_size=1, max_size=3), st.integers(3, 4), st.integers(2, 3)
)
def test_with_every_task_sampled_it_equals_brute_force_too(success, group, lower) -> None:
    budget = group * len(success)
    strategy = make_strategy(settings(budget=budget, group=group, every=True, lower=lower, upper=6))
    assert strategy.candidates(budget) == len(success)
    found = counts(strategy.plan(planning_view(roots(*success), total=budget)))
    assert tuple(found) in brute_force(success, range(lower, 7), budget, knapsack_value)[1]


def test_what_was_observed_counts_more_than_what_is_predicted() -> None:
    allocator = Allocator(settings(budget=4, pool=2, upper=4))
    first = sample_step(allocator, roots(0.3, 0.9), never)[1]
    assert counts(first[0]) == [4, 0]
    # Task 0 was never solved: hardly worth anything, whatever its prediction.
    again = sample_step(allocator, roots(0.3, 0.9), half)[1]
    assert counts(again[0]) == [0, 4]
    resumed = Allocator(settings(budget=4, pool=2, upper=4))
    resumed.restore(json.loads(json.dumps(allocator.state())))
    # Task 1 was solved every other time.
    assert counts(sample_step(resumed, roots(0.3, 0.9), half)[1][0]) == [0, 4]


def test_what_the_others_have_no_use_for_goes_to_tasks_that_never_succeeded() -> None:
    strategy = make_strategy(settings(budget=100, pool=4))
    found = counts(strategy.plan(planning_view(roots(1.0, 0.5, 0.0, 0.0), total=100)))
    assert found[1] < 25 < found[2] and abs(found[2] - found[3]) <= 1 and found[0] < 2


def test_bounds_hold_and_the_budget_is_spent() -> None:
    success = np.random.default_rng(0).beta(0.5, 0.5, 64)
    strategy = make_strategy(settings(budget=256, pool=64, lower=3, upper=16))
    found = np.array(counts(strategy.plan(planning_view(roots(*success), total=256))))
    assert found.sum() == 256 and np.all((found == 0) | (found >= 3)) and found.max() <= 16


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lower": 1}, r"allocation.options.knapsack.lower = 1: must be at least 2"),
        ({"lower": 4, "upper": 6}, r"allocation.options.knapsack.upper = 6: must be at least 2"),
        ({"upper": 3, "pool": 3}, r"allocation.budget = 12: must be from lower \(2\) to .* \(9\)"),
        (
            {"every": True, "upper": 3},
            r"allocation.options.knapsack.every = True: allocation.group \(4\)",
        ),
        (
            {"every": True, "group": 5},
            r"allocation.budget = 12: must be a multiple of allocation.group",
        ),
    ],
)
def test_what_cannot_work_is_one_line(options, said) -> None:
    with pytest.raises(SettingError, match=said):
        make_strategy(settings(**options))
