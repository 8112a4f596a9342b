"""Measurements in the laboratory."""

import numpy as np
import pytest

from megatron_trace.config import AdvantageConfig, AllocationConfig, BudgetUnit
from megatron_trace.simulate import Simulation, WorldConfig, make_world, measure, train
from megatron_trace.simulate.gradient import gradient_quality, sampled_gradient
from megatron_trace.simulate.truth import true_advantages

ALLOCATION = {"budget": 64, "group": 8, "pool": 32}


@pytest.fixture(scope="module")
def uneven():
    """A world in which most tasks are nearly solved or nearly hopeless."""
    return make_world(WorldConfig(tasks=128, depth=4, spread=0.7))


def without_time(numbers):
    return {name: value for name, value in numbers.items() if name != "seconds"}


def test_the_same_seed_measures_the_same(uneven) -> None:
    one, same, other = (
        measure(AllocationConfig(strategy="trace", **ALLOCATION), uneven, repeats=4, seed=seed)
        for seed in (0, 0, 1)
    )
    assert without_time(one) == without_time(same) != without_time(other)


def test_trace_finds_more_contrast_than_uniform_where_difficulties_differ(uneven) -> None:
    found = {
        strategy: measure(AllocationConfig(strategy=strategy, **ALLOCATION), uneven, repeats=20)
        for strategy in ("uniform", "trace")
    }
    assert found["trace"]["rollouts"] == found["uniform"]["rollouts"] == 64
    assert found["trace"]["mixed"] > 1.3 * found["uniform"]["mixed"]
    assert found["trace"]["mixed_share"] > 1.3 * found["uniform"]["mixed_share"]
    assert all(np.isfinite(value) for numbers in found.values() for value in numbers.values())


def test_the_unbiased_backup_is_unbiased_where_the_other_is_not(uneven) -> None:
    # All its continuations are planned at once, as the unbiased backup supposes.
    allocation = AllocationConfig(strategy="trace_paper", **ALLOCATION)
    numbers = measure(allocation, uneven, repeats=60)
    assert numbers["backup_unbiased_expanded_slope"] == pytest.approx(1.0, abs=0.12)
    assert numbers["backup_leaf_weighted_expanded_slope"] < 0.8


def test_a_budget_of_tokens_and_graded_rewards_can_be_measured() -> None:
    world = make_world(WorldConfig(tasks=32, depth=3, graded=True))
    allocation = AllocationConfig(
        strategy="trace", unit=BudgetUnit.tokens, budget=2000, expected_tokens=40, pool=32
    )
    numbers = measure(allocation, world, repeats=20)
    assert numbers["tokens"] == pytest.approx(2000, rel=0.1)
    assert "mixed_by_plan" not in numbers and np.isfinite(numbers["gradient_snr"])


def test_training_raises_success_and_costs_what_it_says(uneven) -> None:
    run = Simulation(uneven, AllocationConfig(strategy="uniform", **ALLOCATION))
    rows = train(run, rollouts=640)
    assert [row["rollouts"] for row in rows] == list(range(0, 641, 64))
    assert rows[-1]["success"] > rows[0]["success"] + 0.015
    assert rows[-1]["tokens"] == run.tokens > 0


def test_a_large_world_shows_an_estimators_bias_and_deviation_too() -> None:
    world = make_world(WorldConfig(tasks=1000, depth=3))
    numbers = measure(AllocationConfig(strategy="uniform", **ALLOCATION), world, repeats=10)
    # GRPO credits whole outcomes, so its advantages are biased.
    assert numbers["advantage_bias"] > 0.1 and numbers["advantage_deviation"] > 0.1


@pytest.mark.parametrize("strategy", ["trace", "vip", "knapsack"])
def test_a_step_again_has_the_same_candidates_and_leaves_nothing_behind(uneven, strategy) -> None:
    allocation = AllocationConfig(strategy=strategy, **ALLOCATION)
    one, other = Simulation(uneven, allocation), Simulation(uneven, allocation)
    for _ in range(3):
        first, again = one.step(), one.again()
        assert {tree.task["id"] for tree in again.trees} & {tree.task["id"] for tree in first.trees}
        assert [tree.turns for tree in again.trees] != [tree.turns for tree in first.trees]
        assert [tree.turns for tree in other.step().trees] == [tree.turns for tree in first.trees]
    costs = [
        (run.rollouts, run.tokens, run.sampler.clock, run.allocator.state()) for run in (one, other)
    ]
    assert costs[0] == costs[1]


def drawn(world, steps, independent):
    """The tasks of uniform steps of 8 candidates."""
    run = Simulation(world, AllocationConfig(strategy="uniform", budget=16, group=2), seed=3)
    return [
        [tree.task["index"] for tree in run.step(independent=independent).trees]
        for _ in range(steps)
    ]


def test_steps_that_draw_anew_share_tasks_by_chance_and_others_share_them_out() -> None:
    world = make_world(WorldConfig(tasks=16, depth=2))
    stream, independent = drawn(world, 40, independent=False), drawn(world, 40, independent=True)
    assert all(len(set(step)) == 8 for step in stream + independent)
    shared = [
        [len({*a} & {*b}) for a, b in zip(steps[::2], steps[1::2], strict=True)]
        for steps in (stream, independent)
    ]
    assert not any(shared[0]) and np.mean(shared[1]) == pytest.approx(4.0, abs=1.0)
    assert drawn(world, 40, independent=True) == independent


def test_more_candidates_than_tasks_are_all_tasks_again() -> None:
    world = make_world(WorldConfig(tasks=3, depth=2))
    run = Simulation(world, AllocationConfig(strategy="uniform", budget=16, group=2))
    counts = np.bincount([tree.task["index"] for tree in run.step(independent=True).trees])
    assert sorted(counts) == [2, 3, 3]


def test_ideal_gradients_count_the_turns_that_the_learner_counts(uneven) -> None:
    allocation = AllocationConfig(strategy="uniform", **ALLOCATION)
    learning = AdvantageConfig(filter_groups=True)
    numbers = measure(allocation, uneven, advantage=learning, repeats=4, warmup=0)
    run, ideal = Simulation(uneven, allocation, learning), []
    for _ in range(4):
        step = run.step(independent=True)
        assert step.counted is not None and 0 < step.counted.sum() < len(step.counted)
        truth = true_advantages(run.policy, step.turns)
        ideal.append(sampled_gradient(run.policy, step.turns, truth, step.counted))
        run.sampler.update(run.policy)
    expected = gradient_quality(ideal, run.policy.gradient)
    assert numbers["ideal_gradient_alignment"] == pytest.approx(expected.alignment)
    everything = measure(allocation, uneven, repeats=4, warmup=0)
    assert numbers["by_leaves_gradient_alignment"] != everything["by_leaves_gradient_alignment"]


@pytest.mark.parametrize(
    "run", [lambda simulation: train(simulation, rollouts=64), Simulation.step]
)
def test_a_strategy_that_plans_nothing_is_named(uneven, run) -> None:
    simulation = Simulation(uneven, AllocationConfig(strategy="uniform", **ALLOCATION))
    simulation.allocator.strategy.plan = lambda view: [{} for _ in view.trees]
    with pytest.raises(RuntimeError, match="strategy uniform planned no rollouts in step 1"):
        run(simulation)
