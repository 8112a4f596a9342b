"""TreePO fills a tree level by level."""

import pytest

from megatron_trace.allocation import make_strategy
from megatron_trace.config import AllocationConfig, SettingError
from megatron_trace.tree import ROOT
from tests.unit.allocation.views import planning_view, roots
from tests.unit.trees import bare_tree, chain


def treepo(group=8, **options):
    return make_strategy(
        AllocationConfig(strategy="treepo", budget=group, group=group, options={"treepo": options})
    )


def test_a_tree_doubles_with_every_level() -> None:
    strategy, [tree] = treepo(group=16), roots(0.5)
    leaves, depths = [], []
    for number in range(4):
        [plan] = strategy.plan(planning_view([tree], total=16, round=number))
        depths.append({len(tree.path(anchor)) - 1 for anchor in plan})
        for anchor, count in plan.items():
            for _ in range(count):
                tree.graft(anchor, chain(0, 5 - len(tree.path(anchor)) + 1, 1.0))
        leaves.append(len(tree.leaves()))
    assert leaves == [2, 4, 8, 16] and depths == [{0}, {1}, {2}, {3}]


def test_a_level_that_cannot_all_be_paid_is_paid_in_part() -> None:
    tree = bare_tree([1.0, 0.0], turns=3)
    [plan] = treepo(group=3).plan(planning_view([tree], total=3, round=1))
    assert plan in ({1: 1}, {4: 1})


def test_paths_that_ended_early_leave_their_share_to_the_root() -> None:
    tree = bare_tree([1.0, 0.0], turns=1)
    assert treepo(group=8).plan(planning_view([tree], total=8, round=1)) == [{ROOT: 2}]
    for _ in range(2):
        tree.graft(ROOT, chain(0, 2, 1.0))
    assert treepo(group=8).plan(planning_view([tree], total=8, round=2)) == [{3: 1, 5: 1}]


def test_a_wider_tree_has_more_children_at_every_node() -> None:
    strategy = treepo(group=9, width=3)
    assert strategy.plan(planning_view(roots(0.5), total=9)) == [{ROOT: 3}]
    tree = bare_tree([1.0, 0.0, 0.0], turns=2)
    assert strategy.plan(planning_view([tree], total=9, round=1)) == [{1: 2, 3: 2, 5: 2}]


def test_merged_histories_are_refused() -> None:
    settings = AllocationConfig(strategy="treepo", merge=True)
    with pytest.raises(SettingError, match=r"allocation.merge = True: must be false"):
        make_strategy(settings)


def test_a_node_must_branch() -> None:
    with pytest.raises(
        SettingError, match=r"allocation.options.treepo.width = 1: must be at least 2"
    ):
        treepo(width=1)
