"""GiGPO against its formulas, arXiv 2505.10978, eq. 3 to 8."""

import numpy as np
import pytest

from megatron_trace.config import AdvantageConfig
from megatron_trace.learning.advantages.gigpo import Options
from megatron_trace.learning.advantages.gigpo import estimate as gigpo
from megatron_trace.learning.advantages.grpo import estimate as grpo
from tests.unit.learning.advantages.small_tree import small_tree

DISCOUNT = 0.9


def normalised(returns: list[float], std: bool) -> np.ndarray:
    values = np.array(returns)
    return (values - values.mean()) / (values.std() + 1e-6 if std else 1.0)


@pytest.mark.parametrize("std", [True, False])
def test_turns_from_the_same_state_are_compared_by_their_discounted_returns(std: bool) -> None:
    tree = small_tree()
    # Turn 5 starts from the same state as turns 2, 6 and 8.
    tree.turns[4].observation_ids = list(tree.turns[1].observation_ids)
    learning = AdvantageConfig(std=std)
    step = np.zeros(9)
    step[[1, 4]] = normalised([(DISCOUNT**2 + 0.0 + DISCOUNT) / 3, 0.0], std)
    step[[2, 5, 6, 8]] = normalised([DISCOUNT, 0.0, 0.0, 1.0], std)
    assert list(gigpo(tree, learning, Options(weight=0.5, discount=DISCOUNT))) == pytest.approx(
        list(grpo(tree, learning) + 0.5 * step), rel=1e-12
    )


def test_a_shorter_way_to_success_is_worth_more() -> None:
    advantages = gigpo(small_tree(), AdvantageConfig(), Options(discount=DISCOUNT))
    assert advantages[8] > advantages[2] > advantages[6]


def test_without_weight_it_is_grpo() -> None:
    learning = AdvantageConfig()
    advantages = gigpo(small_tree(), learning, Options(weight=0.0))
    np.testing.assert_array_equal(advantages, grpo(small_tree(), learning))
