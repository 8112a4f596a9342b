"""Training in the simulator: gradient ascent on θ with the trees that a strategy samples."""

import time

import numpy as np

from megatron_trace.simulate.policy import SimulatedPolicy
from megatron_trace.simulate.simulation import Simulation
from megatron_trace.tree import effective_ratio


def train(
    simulation: Simulation, *, rollouts: int, learning_rate: float = 0.05, every: int = 1
) -> list[dict[str, float]]:
    """Train with Adam (arXiv 1412.6980, β 0.9 and 0.999) until `rollouts` have been sampled.

    Returns:
        a row for the start, every `every` steps and the end: `step`, `rollouts`, `tokens`, `clock`,
        `success` (exact, over all tasks) and `seconds`; of the step before the row
        `effective_ratio` and the scores of its predictions, `predictor_*`.

    Raises:
        RuntimeError: the strategy plans no rollouts in a step.
    """
    theta, begin, step = simulation.policy.theta, time.perf_counter(), 0
    mean, square = np.zeros_like(theta), np.zeros_like(theta)
    rows = [_row(simulation, step, begin)]
    while simulation.rollouts < rollouts:
        step += 1
        sampled = simulation.step()
        mean = 0.9 * mean + 0.1 * sampled.gradient
        square = 0.999 * square + 0.001 * sampled.gradient**2
        # Gradients are means over tokens, and small: Adam's usual 1e-8 would damp the steps.
        size = np.sqrt(square / (1 - 0.999**step)) + 1e-12
        theta = theta + learning_rate * mean / (1 - 0.9**step) / size
        simulation.sampler.update(SimulatedPolicy(simulation.world, theta))
        if step % every == 0 or simulation.rollouts >= rollouts:
            of_step = {"effective_ratio": effective_ratio(sampled.trees)}
            for name, score in sampled.predictor.items():
                if name.startswith("predictor_"):
                    of_step[name] = score
            rows.append(_row(simulation, step, begin) | of_step)
    return rows


def _row(simulation: Simulation, step: int, begin: float) -> dict[str, float]:
    return {
        "step": step,
        "rollouts": simulation.rollouts,
        "tokens": simulation.tokens,
        "clock": simulation.sampler.clock,
        "success": simulation.policy.success,
        "seconds": time.perf_counter() - begin,
    }
