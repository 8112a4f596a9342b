"""Measurements in the laboratory."""

import numpy as np
import pytest

from megatron_trace.config import AllocationConfig, BudgetUnit
from megatron_trace.simulate import Simulation, WorldConfig, make_world, measure, train

ALLOCATION = {"budget": 64, "group": 8, "pool": 32}


@pytest.fixture(scope="module")
def uneven():
    """A world in which most tasks are nearly solved or nearly hopeless."""
    return make_world(WorldConfig(tasks=128, depth=4, spread=0.7))


def without_time(numbers):
    return {name: value for name, value in numbers.items() if name != "seconds"}


def test_the_same_seed_measures_the_same(uneven):
    one, same, other = (
        measure(AllocationConfig(strategy="trace", **ALLOCATION), uneven, repeats=4, seed=seed)
        for seed in (0, 0, 1)
    )
    assert without_time(one) == without_time(same) != without_time(other)


def test_trace_finds_more_contrast_than_uniform_where_difficulties_differ(uneven):
    found = {
        strategy: measure(AllocationConfig(strategy=strategy, **ALLOCATION), uneven, repeats=20)
        for strategy in ("uniform", "trace")
    }
    assert found["trace"]["rollouts"] == found["uniform"]["rollouts"] == 64
    assert found["trace"]["mixed_by_plan"] > 1.3 * found["uniform"]["mixed_by_plan"]
    assert found["trace"]["mixed_by_plan"] > found["trace"]["mixed_by_roots"]
    assert all(np.isfinite(value) for numbers in found.values() for value in numbers.values())


def test_the_unbiased_backup_is_unbiased_where_the_other_is_not(uneven):
    numbers = measure(AllocationConfig(strategy="trace", **ALLOCATION), uneven, repeats=60)
    assert numbers["backup_unbiased_expanded_slope"] == pytest.approx(1.0, abs=0.12)
    assert numbers["backup_leaf_weighted_expanded_slope"] < 0.8


def test_a_budget_of_tokens_and_graded_rewards_can_be_measured():
    world = make_world(WorldConfig(tasks=32, depth=3, graded=True))
    allocation = AllocationConfig(
        strategy="trace", unit=BudgetUnit.tokens, budget=2000, expected_tokens=40, pool=32
    )
    numbers = measure(allocation, world, repeats=20)
    assert numbers["tokens"] == pytest.approx(2000, rel=0.1)
    assert "mixed_by_plan" not in numbers and np.isfinite(numbers["gradient_snr"])


def test_training_raises_success_and_costs_what_it_says(uneven):
    run = Simulation(uneven, AllocationConfig(strategy="uniform", **ALLOCATION))
    rows = train(run, rollouts=640)
    assert [row["rollouts"] for row in rows] == list(range(0, 641, 64))
    assert rows[-1]["success"] > rows[0]["success"] + 0.015
    assert rows[-1]["tokens"] == run.tokens > 0


def test_a_large_world_shows_an_estimators_bias_and_deviation_too():
    world = make_world(WorldConfig(tasks=1000, depth=3))
    numbers = measure(AllocationConfig(strategy="uniform", **ALLOCATION), world, repeats=10)
    assert (
        numbers["advantage_bias"] > 0.1 and numbers["advantage_deviation"] > 0.1
    )  # GRPO credits whole outcomes


@pytest.mark.parametrize("strategy", ["trace", "vip", "knapsack"])
def test_a_step_again_has_the_same_candidates_and_leaves_nothing_behind(uneven, strategy):
    allocation = AllocationConfig(strategy=strategy, **ALLOCATION)
    one, other = Simulation(uneven, allocation), Simulation(uneven, allocation)
    for _ in range(3):
        first, again = one.step(), one.again()
        assert {tree.task["id"] for tree in again.trees} & {tree.task["id"] for tree in first.trees}
        assert [tree.turns for tree in again.trees] != [tree.turns for tree in first.trees]
        assert [tree.turns for tree in other.step().trees] == [tree.turns for tree in first.trees]
    costs = [(run.rollouts, run.tokens, run.sampler.clock, run.allocator.state()) for run in (one, other)]
    assert costs[0] == costs[1]
