"""The simulated predictor: the true success probability, with an error in its logit."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from megatron_trace.simulate.policy import SimulatedPolicy
from megatron_trace.simulate.random_numbers import name_key, normal
from megatron_trace.simulate.trees import Floats

MARGIN_BEFORE_ERROR = 5e-3
"""Before its error no prediction is closer to 0 or 1: a real predictor is never that sure."""


def predict(
    policy: SimulatedPolicy, task: NDArray[np.int64], node: NDArray[np.int64], key: int
) -> Floats:
    """Ṽ(n) = σ(logit V(n) + bias + band_noise·η + noise·ε), η and ε standard normal, [n].

    ε is a function of `key`, task and node. η is a function of the world and the task's band.

    Args:
        policy: the policy whose success probabilities are known; with a delay it is older than the
            policy that samples.
        task, node: histories, [n].
        key: changes with the sampler and the policy version, so that a history keeps its prediction
            within a step.
    """
    config = policy.world.config
    prefix_noise = config.noise if config.prefix_noise is None else config.prefix_noise
    noise = np.where(node == 0, config.noise, prefix_noise)
    own_error = normal(key, task.astype(np.uint64), node.astype(np.uint64))
    error = config.bias + noise * own_error
    # The band's error does not depend on `key`, so it lasts over all policy versions.
    if config.band_noise:
        bands = policy.world.band[task].astype(np.uint64)
        error += config.band_noise * normal(name_key(f"band/{config.seed}"), bands)
    value = np.clip(policy.value[task, node], MARGIN_BEFORE_ERROR, 1 - MARGIN_BEFORE_ERROR)
    return expit(logit(value) + error)
