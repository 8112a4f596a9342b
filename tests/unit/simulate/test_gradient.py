"""The sampled gradient is what the learner would compute, and its quality is told rightly."""

import numpy as np
import pytest

from megatron_trace.config import AdvantageConfig, AllocationConfig
from megatron_trace.learning import rows_from_tree
from megatron_trace.simulate import Simulation
from megatron_trace.simulate.gradient import gradient_quality, sampled_gradient
from megatron_trace.simulate.truth import true_advantages


def simulation(world, budget, strategy="uniform", **advantage):
    allocation = AllocationConfig(
        strategy=strategy, budget=budget, group=8, pool=world.config.tasks, calibrate=False
    )
    return Simulation(world, allocation, AdvantageConfig(**advantage))


@pytest.mark.parametrize("filtered", [False, True])
def test_it_weighs_turns_as_the_training_rows_do(world, filtered) -> None:
    run = simulation(world, 64, "trace", filter_groups=filtered)
    step = run.step()
    rows = [row for tree in step.trees for row in rows_from_tree(tree, run.advantage)]
    tokens = sum(row.learn.sum() for row in rows if not row.filtered)
    expected = np.zeros(world.parameters)
    for tree in step.trees:
        seen = set()
        for row, leaf in zip(rows_from_tree(tree, run.advantage), tree.leaves(), strict=True):
            place, node = 0, 0
            for index in tree.path(leaf):
                turn = tree.turns[index]
                if index:
                    action, task = turn.action_ids[0], tree.task["index"]
                    if index not in seen:
                        score = world.sign[task, node, action] - run.policy.mean_sign[task, node]
                        expected[world.skill[task, node]] += row.advantage[place] * score / tokens
                    seen.add(index)
                    node = world.config.actions * node + 1 + action
                place += len(turn.action_ids) + len(turn.observation_ids)
    assert step.gradient == pytest.approx(expected, abs=1e-7)


def test_true_advantages_on_bare_rollouts_give_the_true_gradient(world) -> None:
    run, total = simulation(world, 8 * world.config.tasks), []
    for _ in range(60):
        step = run.step()
        turns, counted = step.turns, step.turns.tokens[step.turns.sampled].sum()
        g = sampled_gradient(run.policy, turns, true_advantages(run.policy, turns))
        total.append(g * counted / turns.terminal.sum())
    mean, error = np.mean(total, axis=0), np.std(total, axis=0, ddof=1) / np.sqrt(len(total))
    assert (np.abs(mean - run.policy.gradient) < 4.5 * error).all()


def test_grpo_on_bare_rollouts_has_the_true_direction_without_its_division(world) -> None:
    run = simulation(world, 8 * world.config.tasks, std=False)
    steps = [run.step() for _ in range(60)]
    total = [step.gradient * step.turns.tokens.sum() / step.turns.terminal.sum() for step in steps]
    mean, error = np.mean(total, axis=0), np.std(total, axis=0, ddof=1) / np.sqrt(len(total))
    # The mean of a group holds each rollout's own reward, which takes 1/8 of the gradient.
    assert (np.abs(mean - run.policy.gradient * 7 / 8) < 4.5 * error).all()


def test_quality_of_gradients_drawn_from_a_known_normal_distribution() -> None:
    rng, truth = np.random.default_rng(0), np.array([3.0, 0.0, 0.0, 0.0])
    expected = np.array([2.0, 2.0, 0.0, 0.0])
    quality = gradient_quality(list(expected + rng.normal(0, 2.0, (20_000, 4))), truth)
    assert quality.snr == pytest.approx(8 / 16, rel=0.05)
    assert quality.cosine == pytest.approx(np.sqrt(0.5), abs=0.01)
    assert quality.alignment == pytest.approx(2 / np.sqrt(24), rel=0.03)


def test_over_many_seeds_snr_and_cosine_of_few_gradients_are_right() -> None:
    rng, deviation = np.random.default_rng(0), np.linspace(0.5, 1.5, 200)
    truth, variance = np.ones(200), float((deviation**2).sum())
    expected = truth * np.sqrt(0.1 * variance / 200)  # in the true direction, SNR 0.1
    found = [
        gradient_quality(list(expected + deviation * rng.normal(size=(10, 200))), truth)
        for _ in range(1000)
    ]
    assert np.mean([quality.snr for quality in found]) == pytest.approx(0.1, abs=0.003)
    assert np.mean([quality.cosine for quality in found]) == pytest.approx(1.0, abs=0.012)
    assert max(quality.cosine for quality in found) > 1.0


def test_without_a_signal_snr_is_0_on_average_and_the_cosine_unknown() -> None:
    rng = np.random.default_rng(0)
    found = [gradient_quality(list(rng.normal(0, 1, (5, 200))), np.ones(200)) for _ in range(400)]
    snr = np.array([quality.snr for quality in found])
    assert abs(snr.mean()) < 4 * snr.std() / 20
    assert all(np.isnan(quality.cosine) == (quality.snr <= 0) for quality in found)
