"""TRACE: probes at one price, then fills."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.allocation import make_strategy
from megatron_trace.config import AllocationConfig, BudgetUnit, SettingError
from megatron_trace.tree import ROOT
from tests.unit.allocation.views import planning_view, roots
from tests.unit.trees import bare_tree, chain


def trace(budget=16, pool=8, unit=BudgetUnit.rollouts, **options):
    settings = AllocationConfig(
        strategy="trace",
        budget=budget,
        pool=pool,
        unit=unit,
        expected_tokens=8,
        options={"trace": {"explore": 0.0} | options},
    )
    return make_strategy(settings)


def planned(plans) -> int:
    return sum(sum(plan.values()) for plan in plans)


def test_tasks_nearest_one_half_are_probed_first() -> None:
    trees = roots(0.99, 0.5, 0.01, 0.4, 0.98, 0.02, 0.97, 0.6)
    plans = trace(budget=12).plan(planning_view(trees, total=12))
    assert plans[1] == plans[3] == plans[7] == {ROOT: 2}
    assert plans[0] == plans[2] == {}


def test_probes_leave_what_filling_the_mixed_trees_is_expected_to_take() -> None:
    plans = trace(budget=32).plan(planning_view(roots(*[0.5] * 16), total=32))
    assert 2 <= planned(plans) < 32


def test_tasks_that_are_all_alike_are_probed_all_the_same() -> None:
    plans = trace(budget=64).plan(planning_view(roots(*[0.5] * 32), total=64))
    assert planned(plans) > 10


def test_the_last_round_fills_mixed_trees_and_those_with_few_rollouts_first() -> None:
    trees = [bare_tree([1.0, 0.0]), bare_tree([0.0] * 4, turns=1), bare_tree([1.0, 0.0] * 3)]
    trees[1].turns[ROOT].prediction = 0.01
    plans = trace(budget=20).plan(planning_view(trees, total=20, round=2))
    assert planned(plans) == 8
    assert plans[1] == {}
    assert plans[0][ROOT] > plans[2].get(ROOT, 0)


def test_a_tree_that_is_not_mixed_is_continued_where_it_most_likely_flips() -> None:
    tree = bare_tree([0.0, 0.0], turns=3)  # prefixes 1, 2 and 4, 5
    for turn, v in ((ROOT, 0.5), (1, 0.1), (2, 0.05), (4, 0.9), (5, 0.2)):
        tree.turns[turn].prediction = v
    assert trace(budget=8).plan(planning_view([tree], total=8, round=1)) == [{4: 1}]


def test_without_prefixes_only_roots_are_sampled() -> None:
    tree = bare_tree([0.0, 0.0], turns=3)
    tree.turns[4].prediction = 0.9
    strategy = trace(budget=8, prefixes=False)
    assert strategy.plan(planning_view([tree], total=8, round=1)) == [{ROOT: 1}]


def test_more_failures_make_a_further_probe_less_likely() -> None:
    few, many = bare_tree([0.0] * 2), bare_tree([0.0] * 9)
    plans = trace(budget=13).plan(planning_view([many, few], total=13, round=2))
    assert sum(plans[1].values()) > sum(plans[0].values())


def test_where_tokens_are_the_budget_a_cheap_prefix_is_preferred() -> None:
    tree = bare_tree([0.0, 0.0], turns=3)
    for turn, v in ((1, 0.5), (2, 0.3), (4, 0.1), (5, 0.1)):
        tree.turns[turn].prediction = v

    def anchor(cost):
        view = planning_view([tree], total=8, round=1, left=160.0, cost=cost)
        return list(trace(budget=160, unit=BudgetUnit.tokens).plan(view)[0])

    assert anchor(lambda tree, anchor: 20.0) == [1]
    assert anchor(lambda tree, anchor: 5.0 if anchor == 2 else 20.0) == [2]


def test_a_share_of_the_first_probes_is_drawn_from_all_tasks() -> None:
    trees, drawn = roots(*[0.5] * 20, *[0.999] * 20), set()
    strategy = trace(budget=64, pool=40, explore=0.3)
    for number in range(30):
        view = planning_view(trees, total=64)
        object.__setattr__(view, "rng", np.random.default_rng(number))
        plans = strategy.plan(view)
        drawn |= {index for index, plan in enumerate(plans) if plan and index >= 20}
    assert len(drawn) > 10


def test_small_steps_explore_too() -> None:
    trees, drawn = roots(*[0.5] * 20, *[0.999] * 20), 0
    strategy = trace(budget=16, pool=40, explore=0.1)
    for number in range(60):
        view = planning_view(trees, total=16)
        object.__setattr__(view, "rng", np.random.default_rng(number))
        drawn += sum(bool(plan) for plan in strategy.plan(view)[20:])
    assert drawn > 3


def test_a_tree_that_is_not_mixed_is_filled_a_little_at_a_time() -> None:
    tree = bare_tree([0.0, 0.0], turns=3)
    assert planned(trace(budget=32).plan(planning_view([tree], total=32, round=2))) == 2


def test_a_task_whose_probe_failed_is_not_probed_again() -> None:
    trees = roots(*[0.5] * 4)
    plans = trace(budget=8, pool=4).plan(
        planning_view(trees, total=8, round=1, failed=[2, 2, 0, 0])
    )
    assert plans[0] == plans[1] == {}
    assert plans[2]


def test_where_all_probes_failed_the_rest_goes_to_other_tasks() -> None:
    trees = roots(*[0.5] * 4)
    view = planning_view(trees, total=8, round=2, left=4, failed=[2, 2, 0, 0])
    assert trace(budget=8, pool=4).plan(view) == [{}, {}, {ROOT: 2}, {ROOT: 2}]


def test_tokens_that_pay_for_no_bare_rollout_pay_for_continuations() -> None:
    tree = bare_tree([0.0, 0.0], turns=3)
    tree.turns[4].prediction = 0.9
    strategy = trace(budget=800, unit=BudgetUnit.tokens)
    view = planning_view(
        [tree],
        total=8,
        round=2,
        left=95.0,
        cost=lambda tree, anchor: 100.0 if anchor == ROOT else 20.0,
    )
    [plan] = strategy.plan(view)
    assert sum(plan.values()) == 2 and ROOT not in plan


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 3), st.sampled_from([0.0, 0.5, 1.0])),
        min_size=1,
        max_size=6,
    ),
    st.integers(2, 40),
    st.integers(0, 3),
)
def test_no_round_spends_too_much_or_nothing_while_some_is_left(trees, left, round) -> None:
    made = []
    for rollouts, turns, reward in trees:
        tree = bare_tree([reward if number else 0.0 for number in range(rollouts)], turns=turns)
        if turns > 1 and rollouts:
            tree.graft(1, chain(900, 1, 1.0))
        made.append(tree)
    spent = sum(len(tree.rollouts) for tree in made)
    plans = trace(budget=spent + left).plan(planning_view(made, total=spent + left, round=round))
    assert planned(plans) <= left
    # What is not mixed takes little at a time; the rest is planned in a further round.
    if round >= 2:
        assert planned(plans) >= min(left, 2)


@pytest.mark.parametrize(
    ("settings", "options", "match"),
    [
        ({"budget": 1}, {}, r"allocation.budget = 1: must pay for 2 rollouts"),
        ({}, {"probe": 1}, r"allocation.options.trace.probe = 1: must be at least 2"),
        ({}, {"correlation": 1.0}, r"trace.correlation = 1.0: must be"),
        ({}, {"floor": 4}, r"allocation.options.trace.floor = 4"),
    ],
)
def test_what_cannot_work_is_refused(settings, options, match) -> None:
    with pytest.raises(SettingError, match=match):
        trace(**settings, **options)
