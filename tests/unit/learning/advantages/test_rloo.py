"""RLOO against its formula, arXiv 2402.14740."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.config import AdvantageConfig
from megatron_trace.learning.advantages.rloo import estimate as rloo
from tests.unit.learning.advantages.small_tree import small_tree
from tests.unit.trees import bare_tree


@given(st.lists(st.sampled_from([0.0, 1.0, 0.25]), min_size=2, max_size=8))
def test_a_rollout_is_compared_with_the_mean_of_the_others(rewards: list[float]) -> None:
    others = [np.mean(rewards[:i] + rewards[i + 1 :]) for i in range(len(rewards))]
    advantages = rloo(bare_tree(rewards, turns=1), AdvantageConfig())
    np.testing.assert_allclose(advantages[1:], np.array(rewards) - others, atol=1e-12)


def test_a_continuation_is_one_of_the_others() -> None:
    expected = [0.0, 2 / 9, 2 / 3, 2 / 3, -2 / 3, -2 / 3, -2 / 3, -2 / 3, 2 / 3]
    assert list(rloo(small_tree(), AdvantageConfig())) == pytest.approx(expected, rel=1e-12)


def test_a_lone_rollout_is_compared_with_nothing() -> None:
    assert not rloo(bare_tree([1.0]), AdvantageConfig()).any()
