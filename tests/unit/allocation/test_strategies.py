"""Strategies spend the budget exactly, where they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.allocation import make_strategy
from megatron_trace.allocation.trace import split_evenly
from megatron_trace.config import AllocationConfig
from megatron_trace.tree import ROOT
from tests.unit.trees import bare_tree


def trace(**settings):
    return make_strategy(AllocationConfig(strategy="trace", **settings))


def test_uniform_gives_every_task_its_group_and_no_continuation():
    strategy = make_strategy(AllocationConfig(strategy="uniform", budget=24, group=8))
    assert strategy.candidates == 3
    assert list(strategy.plan_roots(np.array([0.0, 0.5, 1.0]))) == [8, 8, 8]
    assert strategy.plan_prefixes([bare_tree([1.0])]) == [{}]


def test_trace_leaves_certain_tasks_alone():
    plan = trace(budget=12, bare_rollouts=8, pool=4, floor=4).plan_roots(np.array([0.99, 0.5, 0.01, 0.4]))
    assert list(plan) == [0, 4, 0, 4]


def test_trace_expands_where_the_predictor_disagrees_with_the_outcome():
    tree = bare_tree([1.0, 0.0], turns=2)
    tree.turns[1].prediction, tree.turns[3].prediction = 0.1, 0.1
    assert trace(budget=3, bare_rollouts=2, floor=2).plan_prefixes([tree]) == [{1: 1}]


@given(
    st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=5),
    st.integers(0, 30),
    st.sampled_from([None, 1, 3]),
)
def test_trace_spends_all_continuations_even_without_prefixes(turns, continuations, cap):
    trees = [bare_tree([1.0, 0.0], turns=n) for n in turns]
    strategy = trace(budget=10 + continuations, bare_rollouts=10, prefix_cap=cap)
    plans = strategy.plan_prefixes(trees)
    assert sum(sum(plan.values()) for plan in plans) == continuations
    for tree, plan in zip(trees, plans, strict=True):
        assert set(plan) <= {ROOT, *tree.prefixes()}
        assert cap is None or all(count <= cap for anchor, count in plan.items() if anchor != ROOT)


@pytest.mark.parametrize(
    ("total", "room", "shares"),
    [(7, [9, 9, 9], [3, 2, 2]), (7, [1, 9, 0], [1, 6, 0]), (7, [1, 1], [1, 1]), (0, [5], [0]), (3, [], [])],
)
def test_shares_are_as_equal_as_room_allows(total, room, shares):
    assert split_evenly(total, room) == shares
