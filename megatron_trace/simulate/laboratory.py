"""Measurements of a strategy in a simulated world, the policy held still."""

import time
from collections.abc import Sequence

import numpy as np

from megatron_trace.config import AdvantageConfig, AllocationConfig, Backup
from megatron_trace.simulate.gradient import gradient_quality, sampled_gradient
from megatron_trace.simulate.policy import SimulatedPolicy
from megatron_trace.simulate.simulation import Simulation, Step
from megatron_trace.simulate.trees import Floats, World
from megatron_trace.simulate.truth import (
    backup_error,
    estimator_error,
    mixed_by_plan,
    mixed_by_roots,
    true_advantages,
    true_values,
)
from megatron_trace.tree import effective_ratio, leaf_statistics
from megatron_trace.tree.backup import sampled_statistics

TWINS = 20
"""Measured steps that are sampled a second time, so that one turn's advantage is known from two trees."""

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
    """Take `repeats` steps' sampling with one policy, and compare what they give with what is true.

    Their candidates are drawn anew in every step: steps that share out the tasks between them, as in training, would
    scatter less around their mean than their own scatter says.

    Args:
        advantage: how advantages are made; None: the strategy's own estimator and the defaults.
        warmup: steps before, as in training, from which strategy, cost and calibration learn; they are not measured.
        slots: rollouts that run at the same time; None: all.
        policy: None: the start policy.

    Returns:
        The numbers that docs/simulator.md lists; means over steps where nothing else is said.

    Raises:
        SettingError: the strategy is unknown, or cannot work with its settings.
        RuntimeError: it plans no rollouts in a step.
    """
    begin = time.perf_counter()
    simulation = Simulation(world, allocation, advantage, seed=seed, slots=slots, policy=policy)
    policy = simulation.policy
    for _ in range(warmup):
        simulation.step()
        simulation.sampler.update(policy)  # the next version: the predictor's errors are drawn anew
    before = np.array([simulation.rollouts, simulation.tokens, simulation.sampler.clock])
    steps, twins, rows = [], list[Step](), []
    for number in range(repeats):
        steps.append(simulation.step(anew=True))
        if number < TWINS:
            twins.append(simulation.again())
        rows.append(_contrast(policy, steps[-1]) | steps[-1].predictor)
        simulation.sampler.update(policy)
    spent = (
        np.array([simulation.rollouts, simulation.tokens, simulation.sampler.clock]) - before
    ) / repeats
    numbers = dict(zip(("rollouts", "tokens", "clock"), spent.tolist(), strict=True)) | _means(rows)
    numbers |= _gradients(policy, steps)
    numbers["gradient_snr_per_1000_rollouts"] = 1000 * numbers["gradient_snr"] / spent[0]
    numbers["gradient_snr_per_1000_tokens"] = 1000 * numbers["gradient_snr"] / spent[1]
    numbers |= _advantages(policy, [*steps[:TWINS], *twins]) | _backups(policy, steps)
    return numbers | {"success": policy.success, "seconds": time.perf_counter() - begin}


def _contrast(policy: SimulatedPolicy, step: Step) -> dict[str, float]:
    """How many of a step's trees are mixed: as sampled, and as expected of its plans."""
    numbers = {
        "trees": float(len(step.trees)),
        "effective_ratio": effective_ratio(step.trees),
        "mixed": len(step.trees) * effective_ratio(step.trees),
    }
    if not policy.world.config.graded:
        numbers["mixed_by_roots"] = float(mixed_by_roots(policy, step.trees).sum())
        numbers["mixed_by_plan"] = float(mixed_by_plan(policy, step.trees, step.turns).sum())
        numbers["expected_ratio"] = numbers["mixed_by_plan"] / len(step.trees)
    return numbers


def _gradients(policy: SimulatedPolicy, steps: Sequence[Step]) -> dict[str, float]:
    """Of the gradient as it is learned from, with the true advantages on the same trees, and with leaves as weights."""
    gradients: dict[str, list[Floats]] = {
        "gradient": [],
        "ideal_gradient": [],
        "by_leaves_gradient": [],
    }
    for step in steps:
        leaves = np.concatenate([leaf_statistics(tree)[0] for tree in step.trees])
        ideal = sampled_gradient(
            policy, step.turns, true_advantages(policy, step.turns), step.counted
        )
        by_leaves = sampled_gradient(policy, step.turns, step.advantage * leaves, step.counted)
        for name, gradient in zip(gradients, (step.gradient, ideal, by_leaves), strict=True):
            gradients[name].append(gradient)
    return {
        f"{name}_{key}": value
        for name, found in gradients.items()
        for key, value in vars(gradient_quality(found, policy.gradient)).items()
    }


def _advantages(policy: SimulatedPolicy, steps: Sequence[Step]) -> dict[str, float]:
    """Of the estimator: its errors over the sampled turns of steps and their twins."""
    columns, trees = [], 0
    for step in steps:
        turns, sampled = step.turns, step.turns.sampled
        turn_of_world = turns.task * policy.value.shape[1] + turns.node
        all_turns = (
            step.advantage,
            true_advantages(policy, turns),
            turns.tree + trees,
            turn_of_world,
        )
        columns.append([column[sampled] for column in all_turns])
        trees += len(step.trees)
    estimate, truth, unit, group = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    found = estimator_error(estimate, truth, unit, group)
    return {f"advantage_{name}": value for name, value in found.items()}


def _backups(policy: SimulatedPolicy, steps: Sequence[Step]) -> dict[str, float]:
    """Of both backups: their errors at roots, at anchors that were continued, and at the others."""
    truth = np.concatenate([true_values(policy, step.turns) for step in steps])
    kinds = np.concatenate([_kinds(step) for step in steps])
    first = np.cumsum([0, *(len(step.trees) for step in steps)])
    unit = np.concatenate([step.turns.tree + n for step, n in zip(steps, first, strict=False)])
    numbers: dict[str, float] = {}
    for backup, function in BACKUPS.items():
        estimate = np.concatenate([function(tree)[1] for step in steps for tree in step.trees])
        for number, kind in enumerate(("root", "expanded", "other")):
            at = kinds == number
            errors = backup_error(estimate[at], truth[at], unit[at])
            numbers |= {
                f"backup_{backup.value}_{kind}_{name}": value for name, value in errors.items()
            }
    return numbers


def _kinds(step: Step) -> np.ndarray:
    """Of every turn: 0 root, 1 continued prefix, 2 another prefix, 3 terminal; [turns]."""
    kinds = np.where(step.turns.terminal, 3, np.where(step.turns.sampled, 2, 0))
    first = np.flatnonzero(step.turns.turn == 0)
    for number, tree in enumerate(step.trees):
        for rollout in tree.rollouts:
            if rollout.stage == "continuation":
                kinds[first[number] + rollout.anchor] = 1
    return kinds


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each number over the steps that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
