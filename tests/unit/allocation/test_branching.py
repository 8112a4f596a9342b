"""Strategies that branch give every task the same group."""

import pytest

from megatron_trace.allocation import make_strategy
from megatron_trace.config import AllocationConfig
from megatron_trace.tree import ROOT
from tests.unit.allocation.views import planning_view, roots
from tests.unit.trees import bare_tree


def at2po(**settings):
    return make_strategy(
        AllocationConfig(**{"strategy": "at2po", "budget": 16, "group": 8} | settings)
    )


@pytest.mark.parametrize(("share", "chains"), [(0.01, 1), (0.5, 4), (0.7, 6), (1.0, 8)])
def test_the_bare_share_of_a_group_begins_at_the_root(share, chains) -> None:
    assert at2po(bare_share=share).plan(planning_view(roots(0.5), total=8)) == [{ROOT: chains}]


def test_no_more_tasks_begin_than_whole_groups_can_be_paid() -> None:
    view = planning_view(roots(0.5, 0.5, 0.5), total=20)
    assert at2po().candidates(20) == 2
    assert at2po().plan(view) == [{ROOT: 4}, {ROOT: 4}, {}]


def test_begun_tasks_are_finished_before_another_begins() -> None:
    trees = [bare_tree([1.0, 0.0] * 2, turns=2), *roots(0.5)]
    assert [
        sum(plan.values()) for plan in at2po().plan(planning_view(trees, total=16, round=1))
    ] == [
        2,
        0,
    ]


def test_where_little_is_left_it_is_spread_evenly() -> None:
    trees = [bare_tree([1.0, 0.0] * 2, turns=2) for _ in range(3)]
    plans = at2po().plan(planning_view(trees, total=24, round=1, left=4))
    assert [sum(plan.values()) for plan in plans] == [2, 1, 1]
