"""Probabilities of contrast and errors of estimates, against what happens and against hand-made
cases.
"""

import numpy as np
import pytest

from megatron_trace.config import AdvantageConfig, AllocationConfig
from megatron_trace.simulate import Simulation
from megatron_trace.simulate.estimation_error import backup_error, estimator_error
from megatron_trace.simulate.truth import mixed_by_plan, mixed_by_roots
from megatron_trace.tree import effective_ratio


@pytest.mark.parametrize("strategy", ["uniform", "trace_paper"])
def test_trees_become_mixed_as_often_as_is_expected(world, strategy) -> None:
    allocation = AllocationConfig(strategy=strategy, budget=96, group=4, pool=24, calibrate=False)
    run, rows = Simulation(world, allocation, AdvantageConfig()), []
    for _ in range(80):
        step = run.step()
        bare = [
            {
                tree.turns[leaf].reward
                for leaf in tree.leaves()
                if tree.rollouts[tree.turns[leaf].rollout].anchor == 0
            }
            for tree in step.trees
        ]
        rows.append(
            (
                mixed_by_roots(run.policy, step.trees).sum()
                - sum(len(rewards) > 1 for rewards in bare),
                mixed_by_plan(run.policy, step.trees, step.turns).sum()
                - len(step.trees) * effective_ratio(step.trees),
            )
        )
        run.sampler.update(run.policy)
    error = np.std(rows, axis=0, ddof=1) / np.sqrt(len(rows)) + 1e-12
    assert (np.abs(np.mean(rows, axis=0)) < 4 * error).all()


def test_an_estimator_is_judged_up_to_the_factor_that_fits_best() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(200), 50)
    truth = rng.normal(0, 1, 200)[group]
    wrong = np.where(np.arange(200) % 2, 0.5, -0.5)[group]
    noisy = 3.0 * (truth + wrong + rng.normal(0, 2.0, truth.shape))
    found = estimator_error(noisy, truth, unit=np.arange(len(group)), group=group)
    assert found["scale"] == pytest.approx(3.0, rel=0.1)
    assert found["bias"] == pytest.approx(0.5 / np.sqrt(np.mean(truth**2)), rel=0.1)
    assert found["deviation"] == pytest.approx(2.0 / np.sqrt(np.mean(truth**2)), rel=0.1)
    right = estimator_error(truth, truth, unit=np.arange(len(group)), group=group)
    assert right == pytest.approx(
        {"scale": 1.0, "bias": 0.0, "deviation": 0.0, "cosine": 1.0}, abs=1e-6
    )


def test_of_turns_that_no_two_trees_share_neither_bias_nor_deviation_is_known() -> None:
    truth = np.random.default_rng(0).normal(size=100)
    found = estimator_error(2 * truth, truth, unit=np.arange(100), group=np.arange(100))
    assert found == pytest.approx({"scale": 2.0, "cosine": 1.0})


def test_turns_of_one_tree_alone_change_neither_bias_nor_deviation() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(200), 20)
    truth = rng.normal(0, 1, 200)[group]
    estimate = 2.0 * (truth + rng.normal(0, 1.0, truth.shape))
    alone, n = rng.normal(0, 3, 5000), np.arange(9000)  # larger ones, and another factor
    found = estimator_error(estimate, truth, n[:4000], group)
    more = estimator_error(
        np.append(estimate, 5 * alone), np.append(truth, alone), n, np.append(group, n[4000:])
    )
    assert more["scale"] > 4.0 > found["scale"]
    assert (more["bias"], more["deviation"]) == pytest.approx((found["bias"], found["deviation"]))
    assert found["deviation"] == pytest.approx(1.0 / np.sqrt(np.mean(truth**2)), rel=0.1)


def test_estimates_of_one_tree_count_once() -> None:
    rng = np.random.default_rng(1)
    group, unit = np.repeat(np.arange(500), 40), np.repeat(np.arange(2000), 10)
    truth = np.ones(len(group))
    shared = truth + rng.normal(0, 1, 2000)[unit]
    assert estimator_error(shared, truth, unit, group)["bias"] < 0.15


def test_a_backup_that_is_unbiased_has_slope_one_and_no_bias() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 1, 40_000)
    outcome = (rng.random(truth.shape) < truth).astype(float)
    unit = np.arange(len(truth))
    fair, drawn = (
        backup_error(e, truth, unit) for e in (outcome, 0.5 * outcome + 0.5 * (1 - truth))
    )
    assert fair["slope"] == pytest.approx(1.0, abs=0.02) and fair["bias"] < 0.01
    assert drawn["slope"] == pytest.approx(0.0, abs=0.02) and drawn["bias"] > 0.2
    assert fair["rmse"] == pytest.approx(np.sqrt(1 / 6), rel=0.02)


def test_errors_that_the_anchors_of_a_tree_share_are_no_bias() -> None:
    rng, found = np.random.default_rng(0), []
    unit, truth = np.repeat(np.arange(50), 20), np.tile([0.31, 0.39], 500)
    for _ in range(200):
        shared = rng.normal(0, 0.3, 50)[unit]
        found.append(backup_error(truth + shared, truth, unit)["bias"])
    # A mean within its own standard error leaves nothing: 68 %, and 18 % were these 1,000 errors,
    # not 50.
    assert np.mean(np.array(found) == 0.0) > 0.5


def test_the_bias_of_a_backup_is_unknown_where_no_two_trees_have_alike_anchors() -> None:
    found = backup_error(np.array([0.0, 1.0, 1.0]), np.array([0.2, 0.5, 0.5]), np.array([0, 1, 1]))
    assert set(found) == {"slope", "rmse"}
