"""The simulated policy: a softmax over the actions of each history, and what is true of it.

    π_θ(a | n) ∝ exp(logits[n, a] + θ[skill[n]] · sign[n, a])

All tasks share the parameters θ; θ = 0 is the start policy. Success probabilities and the gradient
of their mean are exact, by dynamic programming.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import log_softmax

from megatron_trace.simulate.trees import Floats, World, level


@dataclass(frozen=True)
class SimulatedPolicy:
    """A world under the policy with parameters θ.

    Attributes:
        theta: θ, [world.parameters].
    """

    world: World
    theta: Floats

    @cached_property
    def logprob(self) -> Floats:
        """log π(a | n), [tasks, inner, actions]."""
        shift = self.theta[self.world.skill][..., None] * self.world.sign
        return log_softmax(self.world.logits + shift, axis=-1)

    @cached_property
    def probability(self) -> Floats:
        """π(a | n), [tasks, inner, actions]."""
        return np.exp(self.logprob)

    @cached_property
    def cumulative(self) -> Floats:
        """Probability of the actions up to each, [tasks, inner, actions]."""
        return self.probability.cumsum(axis=-1)

    @cached_property
    def value(self) -> Floats:
        """V(n): expected terminal reward once n is reached, [tasks, nodes]; 0 below terminal nodes."""
        config = self.world.config
        value = self.world.reward.copy()
        for depth in reversed(range(config.depth)):
            here, below = level(config, depth), level(config, depth + 1)
            after = value[:, below].reshape(config.tasks, -1, config.actions)
            expected = (self.probability[:, here] * after).sum(axis=-1)
            # A terminal node keeps its reward.
            value[:, here] = np.where(self.world.terminal[:, here], value[:, here], expected)
        return value

    @cached_property
    def reach(self) -> Floats:
        """Probability that a bare rollout acts at n, [tasks, inner]; 0 from terminal nodes on."""
        config = self.world.config
        reach = np.ones(self.world.skill.shape)
        for depth in range(1, config.depth):
            above, here = level(config, depth - 1), level(config, depth)
            of_children = reach[:, above, None] * self.probability[:, above]
            reach[:, here] = of_children.reshape(config.tasks, -1)
            reach[:, here] *= ~self.world.terminal[:, here]
        return reach

    @cached_property
    def mean_sign(self) -> Floats:
        """Σ_a π(a | n)·sign[n, a], [tasks, inner].

        The derivative ∂ log π(a | n) / ∂θ[skill[n]] is sign[n, a] − mean_sign[n].
        """
        return (self.probability * self.world.sign).sum(axis=-1)

    @property
    def success(self) -> float:
        """J(θ): success probability of a bare rollout, mean over all tasks."""
        return float(self.value[:, 0].mean())

    @cached_property
    def gradient(self) -> Floats:
        """∇J(θ): task mean of Σ_n reach(n) Σ_a π(a|n) V(child) ∇ log π(a|n), [world.parameters]."""
        world, config = self.world, self.world.config
        after = self.value[:, 1:].reshape(config.tasks, -1, config.actions)
        score = world.sign - self.mean_sign[..., None]
        of_node = (self.probability * after * score).sum(axis=-1)
        each = self.reach * of_node
        # Histories of all tasks that use a skill share its parameter.
        return np.bincount(world.skill.ravel(), each.ravel(), world.parameters) / config.tasks


def start_policy(world: World) -> SimulatedPolicy:
    """The policy with θ = 0."""
    return SimulatedPolicy(world, np.zeros(world.parameters))
