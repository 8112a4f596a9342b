"""Tree-GRPO expands every tree that a chain began, at random nodes."""

from collections import Counter

import numpy as np
import pytest

from megatron_trace.allocation import make_strategy
from megatron_trace.allocation.strategies.tree_grpo import nodes_by_chain
from megatron_trace.config import AllocationConfig, SettingError
from megatron_trace.tree import ROOT
from tests.unit.allocation.views import planning_view, roots
from tests.unit.trees import bare_tree, chain


def tree_grpo(group=8, bare_share=0.5, **options):
    settings = AllocationConfig(
        strategy="tree_grpo",
        budget=group,
        group=group,
        bare_share=bare_share,
        options={"tree_grpo": options},
    )
    return make_strategy(settings)


def per_chain(tree, plan):
    """Expansions of each chain's tree."""
    return [sum(plan.get(anchor, 0) for anchor in nodes) for nodes in nodes_by_chain(tree).values()]


def test_m_chains_and_n_nodes_of_each_tree_fill_the_group() -> None:
    strategy = tree_grpo(group=12, bare_share=1 / 3)  # M = 4, L = 1, N = 2
    assert strategy.plan(planning_view(roots(0.5), total=12)) == [{ROOT: 4}]
    tree = bare_tree([1.0, 0.0, 0.0, 1.0], turns=4)
    [plan] = strategy.plan(planning_view([tree], total=12, round=1))
    assert per_chain(tree, plan) == [2, 2, 2, 2]


def test_rounds_expand_what_earlier_rounds_have_grown() -> None:
    tree = bare_tree([1.0, 0.0], turns=2)  # 1, 2 and 3, 4
    strategy = tree_grpo(group=6, bare_share=1 / 3, rounds=2)
    assert strategy.plan(planning_view([tree], total=6, round=1)) == [{1: 1, 3: 1}]
    tree.graft(1, chain(900, 3, 1.0))  # 5, 6, 7
    tree.graft(3, chain(950, 2, 1.0))  # 8, 9
    assert nodes_by_chain(tree) == {1: [1, 5, 6], 3: [3, 8]}
    [plan] = strategy.plan(planning_view([tree], total=6, round=2))
    assert per_chain(tree, plan) == [1, 1]


def test_every_node_is_as_likely_as_another() -> None:
    tree = bare_tree([1.0, 1.0], turns=5)
    strategy, view = tree_grpo(group=4), planning_view([tree], total=4, round=1)
    drawn = Counter()
    for _ in range(2000):
        drawn.update(strategy.plan(view)[0])
    assert set(drawn) == {1, 2, 3, 4, 6, 7, 8, 9}
    assert np.allclose(np.array(list(drawn.values())) / 4000, 1 / 8, atol=0.02)


def test_fewer_nodes_a_round_take_more_rounds() -> None:
    tree = bare_tree([1.0, 0.0], turns=4)
    [plan] = tree_grpo(group=8, bare_share=0.25, nodes=1).plan(
        planning_view([tree], total=8, round=1)
    )
    assert per_chain(tree, plan) == [1, 1]


def test_trees_need_a_sibling_to_be_compared_with() -> None:
    assert tree_grpo(group=8, bare_share=0.1).plan(planning_view(roots(0.5), total=8)) == [
        {ROOT: 2}
    ]


def test_a_tree_of_single_turns_is_sampled_from_the_root() -> None:
    tree = bare_tree([1.0, 0.0], turns=1)
    assert tree_grpo(group=4).plan(planning_view([tree], total=4, round=1)) == [{ROOT: 2}]


@pytest.mark.parametrize("option", ["rounds", "nodes"])
def test_no_rounds_and_no_nodes_are_refused(option) -> None:
    with pytest.raises(
        SettingError, match=rf"allocation.options.tree_grpo.{option} = -1: must be at least 1"
    ):
        tree_grpo(**{option: -1})
