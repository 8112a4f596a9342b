import pytest

from megatron_trace.allocation.cost import RolloutCost
from megatron_trace.config import AllocationConfig, BudgetUnit
from tests.unit.trees import bare_tree, chain

TOKENS = AllocationConfig(unit=BudgetUnit.tokens, expected_tokens=50)


def test_a_rollout_is_one_where_rollouts_are_counted() -> None:
    cost, tree = RolloutCost(AllocationConfig()), bare_tree([1.0])
    cost.observe([tree])
    assert (cost(tree, 0), cost(tree, 1), cost.spent(tree, 0)) == (1.0, 1.0, 1.0)


def test_tokens_still_to_come_are_learned_by_depth() -> None:
    cost, tree = RolloutCost(TOKENS), bare_tree([1.0, 0.0], turns=3)  # 2 tokens a turn
    assert cost(tree, 0) == 50.0
    tree.graft(2, chain(900, 5, 1.0))
    assert cost.spent(tree, 2) == 10.0
    cost.observe([tree])
    assert cost(tree, 0) == pytest.approx(6.0, rel=0.01)
    assert cost(tree, 1) == pytest.approx(4.0)  # of the two bare rollouts
    assert cost(tree, 2) == pytest.approx((2 + 2 + 10) / 3)
    again = RolloutCost(TOKENS)
    again.restore(cost.state())
    assert again(tree, 2) == cost(tree, 2)
