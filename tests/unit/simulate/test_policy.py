"""What is said to be true of a policy is."""

import numpy as np
import pytest

from megatron_trace.simulate import SimulatedPolicy, start_policy


@pytest.fixture
def policy(world):
    return SimulatedPolicy(world, np.random.default_rng(0).normal(0, 0.5, world.parameters))


def test_the_gradient_is_that_of_finite_differences(world, policy) -> None:
    step = 1e-6
    for index in range(world.parameters):
        ahead, behind = policy.theta.copy(), policy.theta.copy()
        ahead[index] += step
        behind[index] -= step
        slope = (SimulatedPolicy(world, ahead).success - SimulatedPolicy(world, behind).success) / (
            2 * step
        )
        assert policy.gradient[index] == pytest.approx(slope, abs=1e-9)


def test_probabilities_sum_to_one_and_the_start_policy_has_the_world_s(world, policy) -> None:
    assert np.allclose(policy.probability.sum(axis=-1), 1.0)
    assert np.allclose(start_policy(world).logprob, world.logits)


def test_every_rollout_ends_somewhere(world, policy) -> None:
    ends = (policy.reach[..., None] * policy.probability).reshape(world.config.tasks, -1)
    assert np.allclose((ends * world.terminal[:, 1:]).sum(axis=1), 1.0)
    assert (ends * world.reward[:, 1:]).sum(axis=1) == pytest.approx(policy.value[:, 0])


def test_following_the_gradient_raises_success(world) -> None:
    start = start_policy(world)
    assert SimulatedPolicy(world, start.gradient * 10).success > start.success + 0.01
