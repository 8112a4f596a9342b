"""A predictor that learns from outcomes: it gets better, and knows nothing before it can."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit

from megatron_trace.config import AdvantageConfig, AllocationConfig, Backup, SettingError
from megatron_trace.learning import rows_from_trees
from megatron_trace.simulate import Simulation, WorldConfig, make_world, start_policy, train
from megatron_trace.simulate.learned_predictor import LearnedPredictor
from megatron_trace.simulate.policy import SimulatedPolicy
from megatron_trace.simulate.world import check_world
from megatron_trace.tree import ROOT

WIDE = WorldConfig(
    tasks=256, depth=4, success=0.45, spread=0.8, bands=4, skills=2, predictor="learned"
)
ALLOCATION = {"budget": 64, "group": 4, "pool": 32}


@pytest.fixture(scope="module")
def wide():
    return make_world(WIDE)


def simulation(world, strategy="uniform", seed=0):
    return Simulation(world, AllocationConfig(strategy=strategy, **ALLOCATION), seed=seed)


def roots(run):
    tasks = np.arange(run.world.config.tasks)
    return run.sampler.predict(tasks, np.zeros_like(tasks))


def histories(world):
    """All histories that have not ended, as tasks [n] and nodes [n]."""
    return np.nonzero(~world.terminal[:, : world.skill.shape[1]])


def test_it_knows_nothing_at_first_and_ranks_better_from_step_to_step(wide) -> None:
    run = simulation(wide)
    assert (roots(run) == 0.5).all()
    rows = train(run, rollouts=12 * 64)[1:]
    areas = [row["predictor_auc_every_root"] for row in rows]
    assert areas[0] == 0.5
    assert areas[1] > 0.55 and np.mean(areas[2:5]) > 0.65 and np.mean(areas[-3:]) > 0.75
    assert areas[-1] < rows[-1]["predictor_auc_limit"] - 0.03
    prefixes = [row["predictor_brier_prefix"] for row in rows[-3:]]
    constant = [row["predictor_brier_constant_prefix"] for row in rows[-3:]]
    assert np.mean(prefixes) < 0.8 * np.mean(constant)


def test_what_a_step_brings_is_known_to_the_next_version_only(wide) -> None:
    run = simulation(wide)
    run.step()
    run.sampler.update(run.policy)
    before = roots(run)
    step = run.step()
    assert (roots(run) == before).all()
    planned = [tree.turns[ROOT].prediction for tree in step.trees]
    index = [tree.task["index"] for tree in step.trees]
    assert planned == before[index].tolist()
    run.sampler.update(run.policy)
    assert (roots(run) != before).all()


def test_outcomes_change_nothing_before_they_are_learned(wide) -> None:
    one, other = LearnedPredictor(wide), LearnedPredictor(wide)
    task, node = histories(wide)
    one.see(task[:50], node[:50], np.ones(50))
    other.see(task[:50], node[:50], np.zeros(50))
    assert (one.predict(task, node) == other.predict(task, node)).all()
    one.learn()
    other.learn()
    assert (one.predict(task[:50], node[:50]) > 0.5).all()
    assert (other.predict(task[:50], node[:50]) < 0.5).all()


def test_the_policy_itself_tells_it_nothing(wide) -> None:
    run = simulation(wide)
    run.step()
    run.sampler.update(run.policy)
    before = roots(run)
    other = SimulatedPolicy(wide, np.full(wide.parameters, 2.0))
    assert np.abs(other.value[:, 0] - run.policy.value[:, 0]).mean() > 0.05
    run.sampler.update(other)
    # The same outcomes are fitted once more: the weights only come nearer to the same minimum.
    assert roots(run) == pytest.approx(before, abs=1e-3)


def test_features_do_not_hold_the_value() -> None:
    """The best linear read-out of all true values of a world still misses much of them."""
    world = make_world(replace(WIDE, tasks=2000, depth=3))
    task, node = histories(world)
    x = LearnedPredictor(world).features(task, node)
    truth = logit(np.clip(start_policy(world).value[task, node], 5e-3, 1 - 5e-3))
    for kind in (node == 0, node > 0):
        found = x[kind] @ np.linalg.lstsq(x[kind], truth[kind], rcond=None)[0]
        unexplained = np.var(truth[kind] - found) / np.var(truth[kind])
        assert 0.2 < unexplained < 0.8


def test_it_follows_a_policy_that_becomes_better(wide) -> None:
    """What it is shown changes; old outcomes are forgotten."""
    predictor = LearnedPredictor(wide)
    task, node = histories(wide)
    for success, steps in ((0.2, 10), (0.8, 12)):
        for _ in range(steps):
            predictor.see(task[::40], node[::40], np.full(len(task[::40]), success))
            predictor.learn()
        assert predictor.predict(task, node).mean() == pytest.approx(success, abs=0.05)


def test_the_fit_is_the_minimum_of_the_loss(wide) -> None:
    """At the minimum the pull of the anchors and that of the ridge cancel."""
    predictor = LearnedPredictor(wide)
    task, node = histories(wide)
    rng = np.random.default_rng(0)
    shown = [rng.choice(len(task), 80, replace=False) for _ in range(3)]
    outcomes = [rng.random(80) for _ in shown]
    for at, success in zip(shown, outcomes, strict=True):
        predictor.see(task[at], node[at], success)
    predictor.learn()
    slope = 1.0 * predictor._weights
    for age, at, success in zip((2, 1, 0), shown, outcomes, strict=True):
        x = predictor.features(task[at], node[at])
        slope += 0.8**age * x.T @ (expit(x @ predictor._weights) - success)
    assert np.abs(slope).max() < 0.02


@pytest.mark.parametrize("strategy", ["uniform", "trace", "trace_paper"])
def test_the_same_seed_predicts_the_same_and_a_step_again_leaves_nothing_behind(
    wide, strategy
) -> None:
    one, other = simulation(wide, strategy), simulation(wide, strategy)
    for _ in range(3):
        first, again, same = one.step(), one.again(), other.step()
        assert [tree.turns for tree in same.trees] == [tree.turns for tree in first.trees]
        known = {tree.task["id"]: tree.turns[ROOT].prediction for tree in first.trees}
        shared = [tree for tree in again.trees if tree.task["id"] in known]
        assert shared
        assert all(tree.turns[ROOT].prediction == known[tree.task["id"]] for tree in shared)
        for run in (one, other):
            run.sampler.update(run.policy)
        assert (roots(one) == roots(other)).all()


@pytest.mark.parametrize("backup", list(Backup))
@pytest.mark.parametrize("merge", [False, True])
def test_it_is_shown_the_targets_that_the_head_would_learn(
    wide, monkeypatch, backup, merge
) -> None:
    settings = AdvantageConfig(backup=backup, merge=merge)
    allocation = AllocationConfig(strategy="trace_paper", **ALLOCATION)
    run, seen = Simulation(wide, allocation, settings), []
    monkeypatch.setattr(run.sampler, "see", lambda task, node, success: seen.append(success))
    step = run.step()
    rows = rows_from_trees(step.trees, run.advantage)
    targets = np.concatenate([row.target[row.predict] for row in rows])
    assert np.sort(seen[0]) == pytest.approx(np.sort(targets), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [("predictor", "learnt"), ("noise", 1.0), ("prefix_noise", 0.5), ("delay", 1)],
)
def test_knobs_that_do_not_fit_are_refused_by_name(name, value) -> None:
    with pytest.raises(SettingError, match=rf"world\.{name} = "):
        check_world(replace(WIDE, **{name: value}))
