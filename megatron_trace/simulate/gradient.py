"""The policy gradient that sampled trees give, and how it compares with the true one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_trace.simulate.policy import SimulatedPolicy
from megatron_trace.simulate.steps import Turns
from megatron_trace.simulate.trees import Floats


def sampled_gradient(
    policy: SimulatedPolicy,
    turns: Turns,
    advantage: Floats,
    counted: NDArray[np.bool_] | None = None,
) -> Floats:
    """g = (1/N) Σ_turns A(turn) ∇ log π(action), N the sampled tokens, [world.parameters].

    This is `learning.rows` with the mean over tokens: a turn that several rollouts share counts
    once. The sum over a turn's tokens of ∇ log-probability is that of the turn's action.

    Args:
        advantage: of every turn, [turns]; that of roots is ignored.
        counted: turns that count at all (`learning.advantage.filter_groups`), [turns]; None: all.
    """
    world = policy.world
    kept = turns.sampled if counted is None else turns.sampled & counted
    task, above, action = turns.task[kept], turns.above[kept], turns.action[kept]
    score = world.sign[task, above, action] - policy.mean_sign[task, above]
    weighted = advantage[kept] * score
    total = np.bincount(world.skill[task, above], weighted, world.parameters)
    tokens = int(turns.tokens[kept].sum())
    return total / max(tokens, 1)


@dataclass(frozen=True)
class GradientQuality:
    """What gradients of independent steps with one policy say.

    Attributes:
        snr: |E g|² / tr Cov(g), signal to noise of one step; below 0 where the noise of the
            estimate exceeds it.
        cosine: of E g with the true gradient; may exceed 1 by noise; NaN where no signal was found.
        step_cosine: mean over steps of the cosine of g with the true gradient.
        alignment: E g·∇J / (|∇J| √E|g|²): gain of success for steps of one root mean square length,
            1 at best.
    """

    snr: float
    cosine: float
    step_cosine: float
    alignment: float


def gradient_quality(gradients: Sequence[Floats], truth: Floats) -> GradientQuality:
    """Compare gradients of independent steps with the true gradient.

    Where little signal is left, `snr` and `cosine` are not known well, and more steps help. Neither
    is cut to its possible range, so that means over seeds are right.

    Args:
        gradients: at least two, each [parameters].
        truth: [parameters].
    """
    g = np.stack(gradients)
    mean = g.mean(axis=0)
    direction = truth / np.linalg.norm(truth)
    noise = float(g.var(axis=0, ddof=1).sum())
    # With R gradients |mean|² exceeds |E g|² by tr Cov(g)/R on average.
    signal = float(mean @ mean) - noise / len(g)
    along = float(mean @ direction)
    lengths = np.linalg.norm(g, axis=1)
    root_mean_square = max(float(np.sqrt((lengths**2).mean())), 1e-300)
    cosines = np.divide(g @ direction, lengths, out=np.zeros(len(g)), where=lengths > 0)
    return GradientQuality(
        snr=signal / noise if noise > 0 else float("inf"),
        cosine=float(along / np.sqrt(signal)) if signal > 0 else float("nan"),
        step_cosine=float(cosines.mean()),
        alignment=float(along / root_mean_square),
    )
