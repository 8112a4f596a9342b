"""Worlds are what their knobs say."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_trace.config import SettingError
from megatron_trace.simulate import WorldConfig, make_world, start_policy
from megatron_trace.simulate.trees import level

SHARES = st.sampled_from([0.0, 0.3, 1.0])
WORLDS = st.builds(
    WorldConfig,
    seed=st.integers(0, 9),
    tasks=st.integers(1, 12),
    success=st.floats(0.05, 0.95),
    spread=st.floats(0, 1),
    depth=st.integers(1, 4),
    actions=st.integers(2, 4),
    informative=SHARES,
    decides=SHARES,
    early=SHARES,
    graded=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(WORLDS)
def test_values_are_a_martingale_whose_turns_settle_the_share_they_should(config) -> None:
    world = make_world(config)
    policy = start_policy(world)
    ended = np.zeros((config.tasks, 1), dtype=bool)
    for depth in range(config.depth):
        here, below = level(config, depth), level(config, depth + 1)
        value, probability = policy.value[:, here], policy.probability[:, here]
        after = policy.value[:, below].reshape(*value.shape, config.actions)
        acts = ~ended
        assert np.allclose((probability * after).sum(axis=-1)[acts], value[acts])
        settled = (probability * (after - value[..., None]) ** 2).sum(axis=-1)
        ends = world.terminal[:, below].reshape(after.shape)[..., 0]
        shares = np.array([0.0, config.decides, config.decides if config.graded else 1.0])
        gaps = np.abs(settled[..., None] - shares * (value * (1 - value))[..., None])
        assert (gaps.min(axis=-1)[acts] < 1e-9).all()
        assert (gaps[..., 2][acts & ends] < 1e-9).all(), "the last turn settles all that is open"
        ended = world.terminal[:, below]
    assert ended.all()


@settings(max_examples=30, deadline=None)
@given(WORLDS)
def test_rewards_are_given_at_ends_only_and_are_0_or_1_unless_graded(config) -> None:
    world = make_world(config)
    assert not world.reward[~world.terminal].any()
    if not config.graded:
        assert np.isin(world.reward, (0.0, 1.0)).all()


def test_difficulties_have_the_mean_and_the_spread_that_was_asked_for() -> None:
    for success, spread in ((0.5, 0.1), (0.3, 0.4), (0.6, 0.8)):
        config = WorldConfig(tasks=4000, depth=1, success=success, spread=spread)
        root = start_policy(make_world(config)).value[:, 0]
        assert root.mean() == pytest.approx(success, abs=0.02)
        assert root.var() == pytest.approx(spread * success * (1 - success), rel=0.06)


def test_a_large_spread_is_u_shaped_and_none_makes_all_tasks_alike() -> None:
    roots = [
        start_policy(make_world(WorldConfig(tasks=2000, depth=1, spread=spread))).value[:, 0]
        for spread in (0.0, 0.1, 0.8)
    ]
    middle = [np.mean(np.abs(root - 0.5) < 0.2) for root in roots]
    assert middle[0] == 1.0 and middle[1] > 0.6 and middle[2] < 0.15


def test_lengths_have_the_mean_that_was_asked_for() -> None:
    world = make_world(WorldConfig(tasks=2000, depth=2, action_tokens=40, observation_tokens=20))
    assert world.action_tokens.mean() == pytest.approx(40, rel=0.05)
    assert world.observation_tokens.mean() == pytest.approx(20, rel=0.05)


def test_the_same_config_gives_the_same_world() -> None:
    config = WorldConfig(tasks=5, depth=3)
    one, same, other = make_world(config), make_world(config), make_world(replace(config, seed=1))
    assert (one.reward == same.reward).all() and (one.logits == same.logits).all()
    assert (one.logits != other.logits).any()


@pytest.mark.parametrize(
    ("name", "value"),
    [("spread", 1.5), ("success", 0.0), ("actions", 1), ("depth", 30), ("noise", -1.0)],
)
def test_a_world_that_cannot_be_is_refused_by_name(name, value) -> None:
    with pytest.raises(SettingError, match=f"world.{name} = "):
        make_world(replace(WorldConfig(), **{name: value}))
