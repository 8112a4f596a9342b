"""The simulated predictor: the true success probability, with an error in its logit."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from megatron_trace.simulate.policy import SimulatedPolicy
from megatron_trace.simulate.random_numbers import normal
from megatron_trace.simulate.trees import Floats

SHARPEST = 5e-3
"""No prediction before its error is closer to 0 or 1: a predictor is never that sure."""


def predict(policy: SimulatedPolicy, task: NDArray[np.int64], node: NDArray[np.int64], key: int) -> Floats:
    """Ṽ(n) = σ(logit V(n) + bias + noise·ε), ε standard normal, a function of `key`, task and node.

    Args:
        policy: the one whose success probabilities are known; an older one than that which samples where it lags.
        task, node: histories, [n].
        key: changes with the sampler and the policy version, so that within a step a history keeps its prediction.
    """
    config = policy.world.config
    prefix_noise = config.noise if config.prefix_noise is None else config.prefix_noise
    noise = np.where(node == 0, config.noise, prefix_noise)
    error = config.bias + noise * normal(key, task.astype(np.uint64), node.astype(np.uint64))
    return expit(logit(np.clip(policy.value[task, node], SHARPEST, 1 - SHARPEST)) + error)
