"""Measurements of a strategy in a simulated world, the policy held still."""

import time
from collections.abc import Sequence

import numpy as np

from megatron_trace.config import AdvantageConfig, AllocationConfig, Backup
from megatron_trace.simulate.estimation_error import backup_error, estimator_error
from megatron_trace.simulate.gradient import gradient_quality, sampled_gradient
from megatron_trace.simulate.policy import SimulatedPolicy
from megatron_trace.simulate.simulation import Simulation, Step
from megatron_trace.simulate.trees import Floats, Ints, World
from megatron_trace.simulate.truth import (
    mixed_by_plan,
    mixed_by_roots,
    true_advantages,
    true_values,
)
from megatron_trace.tree import ROOT, effective_ratio, leaf_statistics, mixed_share
from megatron_trace.tree.backup import sampled_statistics

TWINS = 20
"""Measured steps that are sampled twice, so that a turn's advantage is known from two trees."""

KINDS = ("root", "expanded", "other")
"""Kinds of anchors whose backups are judged apart."""

BACKUPS = {Backup.leaf_weighted: leaf_statistics, Backup.unbiased: sampled_statistics}


def measure(
    allocation: AllocationConfig,
    world: World,
    *,
    advantage: AdvantageConfig | None = None,
    repeats: int = 100,
    warmup: int = 5,
    seed: int = 0,
    slots: int | None = None,
    policy: SimulatedPolicy | None = None,
) -> dict[str, float]:
    """Sample `repeats` steps with one policy, and compare the result with what is true.

    Every step draws its candidates from all tasks. In training steps share the tasks among them.
    Such steps scatter less around their mean than the scatter of independent steps suggests.

    Args:
        advantage: how advantages are made; None: the strategy's own estimator and the defaults.
        warmup: steps before the measured ones, from which strategy, cost and calibration learn.
        slots: rollouts that run at the same time; None: all.
        policy: None: the start policy.

    Returns:
        The numbers that docs/simulator.md lists; means over steps unless said otherwise there.

    Raises:
        SettingError: the strategy is unknown, or cannot work with its settings.
        RuntimeError: the strategy plans no rollouts in a step.
    """
    begin = time.perf_counter()
    simulation = Simulation(world, allocation, advantage, seed=seed, slots=slots, policy=policy)
    policy = simulation.policy
    for _ in range(warmup):
        simulation.step()
        # The same policy as the next version, so that the predictor's errors are drawn again.
        simulation.sampler.update(policy)
    before = _cost(simulation)
    steps, twins, rows = list[Step](), list[Step](), list[dict[str, float]]()
    for number in range(repeats):
        step = simulation.step(independent=True)
        steps.append(step)
        # Before the update: the twin must be planned from the same predictions.
        if number < TWINS:
            twins.append(simulation.again())
        rows.append(_contrast(policy, step) | step.predictor)
        simulation.sampler.update(policy)
    rollouts, tokens, clock = ((_cost(simulation) - before) / repeats).tolist()
    numbers = {"rollouts": rollouts, "tokens": tokens, "clock": clock} | _means(rows)
    numbers |= _gradients(policy, steps)
    numbers["gradient_snr_per_1000_rollouts"] = 1000 * numbers["gradient_snr"] / rollouts
    numbers["gradient_snr_per_1000_tokens"] = 1000 * numbers["gradient_snr"] / tokens
    numbers |= _advantages(policy, [*steps[:TWINS], *twins])
    numbers |= _backups(policy, steps)
    return numbers | {"success": policy.success, "seconds": time.perf_counter() - begin}


def _cost(simulation: Simulation) -> Floats:
    """Rollouts, tokens and time that have been spent, [3]."""
    return np.array([simulation.rollouts, simulation.tokens, simulation.sampler.clock])


def _contrast(policy: SimulatedPolicy, step: Step) -> dict[str, float]:
    """How many of a step's trees are mixed: as sampled, and as expected of its plans."""
    trees, ratio = len(step.trees), effective_ratio(step.trees)
    numbers = {"trees": float(trees), "effective_ratio": ratio, "mixed": trees * ratio}
    numbers["mixed_share"] = mixed_share(step.trees)
    if not policy.world.config.graded:
        expected = float(mixed_by_plan(policy, step.trees, step.turns).sum())
        numbers["mixed_by_roots"] = float(mixed_by_roots(policy, step.trees).sum())
        numbers["mixed_by_plan"] = expected
        numbers["expected_ratio"] = expected / trees
    return numbers


def _gradients(policy: SimulatedPolicy, steps: Sequence[Step]) -> dict[str, float]:
    """Quality of the gradient, of that with true advantages, and of that with leaves as weights."""
    found: dict[str, list[Floats]] = {
        "gradient": [],
        "ideal_gradient": [],
        "by_leaves_gradient": [],
    }
    for step in steps:
        true = true_advantages(policy, step.turns)
        leaves = np.concatenate([leaf_statistics(tree)[0] for tree in step.trees])
        by_leaves = step.advantage * leaves
        found["gradient"].append(step.gradient)
        found["ideal_gradient"].append(sampled_gradient(policy, step.turns, true, step.counted))
        found["by_leaves_gradient"].append(
            sampled_gradient(policy, step.turns, by_leaves, step.counted)
        )
    numbers: dict[str, float] = {}
    for name, gradients in found.items():
        quality = vars(gradient_quality(gradients, policy.gradient))
        numbers |= {f"{name}_{key}": value for key, value in quality.items()}
    return numbers


def _advantages(policy: SimulatedPolicy, steps: Sequence[Step]) -> dict[str, float]:
    """Errors of the estimator over the sampled turns of steps and their twins."""
    estimates, truths, units, groups = list[Floats](), list[Floats](), list[Ints](), list[Ints]()
    trees = 0
    for step in steps:
        turns, sampled = step.turns, step.turns.sampled
        # One number for each turn of the world, the same in every tree that holds it.
        turn_of_world = turns.task * policy.value.shape[1] + turns.node
        estimates.append(step.advantage[sampled])
        truths.append(true_advantages(policy, turns)[sampled])
        units.append((turns.tree + trees)[sampled])
        groups.append(turn_of_world[sampled])
        trees += len(step.trees)
    found = estimator_error(
        np.concatenate(estimates),
        np.concatenate(truths),
        np.concatenate(units),
        np.concatenate(groups),
    )
    return {f"advantage_{name}": value for name, value in found.items()}


def _backups(policy: SimulatedPolicy, steps: Sequence[Step]) -> dict[str, float]:
    """Errors of both backups at roots, at anchors that were continued, and at the others."""
    truth = np.concatenate([true_values(policy, step.turns) for step in steps])
    kinds = np.concatenate([_kinds(step) for step in steps])
    first = np.cumsum([0, *(len(step.trees) for step in steps)])
    unit = np.concatenate([step.turns.tree + n for step, n in zip(steps, first, strict=False)])
    numbers: dict[str, float] = {}
    for backup, statistics in BACKUPS.items():
        means = [statistics(tree)[1] for step in steps for tree in step.trees]
        estimate = np.concatenate(means)
        for kind, name in enumerate(KINDS):
            at = kinds == kind
            errors = backup_error(estimate[at], truth[at], unit[at])
            for key, value in errors.items():
                numbers[f"backup_{backup.value}_{name}_{key}"] = value
    return numbers


def _kinds(step: Step) -> Ints:
    """Index of every turn's kind in KINDS, len(KINDS) for terminal turns; [turns]."""
    root, expanded, other, terminal = range(len(KINDS) + 1)
    kinds = np.where(step.turns.sampled, other, root)
    kinds = np.where(step.turns.terminal, terminal, kinds)
    first = np.flatnonzero(step.turns.turn == ROOT)
    for number, tree in enumerate(step.trees):
        for rollout in tree.rollouts:
            if rollout.stage == "continuation":
                kinds[first[number] + rollout.anchor] = expanded
    return kinds


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each number over the steps that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
