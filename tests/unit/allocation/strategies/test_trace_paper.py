"""TRACE in the paper's form: two stages."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.allocation import make_strategy
from megatron_trace.config import AllocationConfig, BudgetUnit, SettingError
from megatron_trace.tree import ROOT, by_histories
from tests.unit.allocation.views import planning_view, roots
from tests.unit.trees import bare_tree, chain, empty_tree, turn


def trace(budget=8, bare_share=0.5, pool=4, **options):
    options = {"floor": 2, "thompson_std": 0.0} | options
    settings = AllocationConfig(
        strategy="trace_paper",
        budget=budget,
        bare_share=bare_share,
        pool=pool,
        options={"trace_paper": options},
    )
    return make_strategy(settings)


def expanded(tree_list, budget, **options):
    """Stage 2 over trees of bare rollouts, with what `budget` leaves."""
    return trace(budget=budget, **options).plan(planning_view(tree_list, total=budget, round=1))


def test_certain_tasks_get_nothing() -> None:
    plan = trace(budget=16, floor=4).plan(planning_view(roots(0.99, 0.5, 0.01, 0.4), total=16))
    assert plan == [{}, {ROOT: 4}, {}, {ROOT: 4}]


@pytest.mark.parametrize(
    ("thompson_std", "deviation", "expected"),
    [(1.0, 0.0, {0, 1, 2}), (None, 1.0, {0, 1, 2}), (None, 0.0, {0, 1}), (0.0, 1.0, {0, 1})],
)
def test_with_thompson_draws_tasks_that_look_nearly_alike_all_get_their_turn(
    thompson_std, deviation, expected
) -> None:
    strategy, chosen = trace(budget=8, bare_share=1.0, floor=4, thompson_std=thompson_std), set()
    trees = roots(0.5, 0.45, 0.4, 0.999)
    for number in range(20):
        view = replace(
            planning_view(trees, total=8),
            rng=np.random.default_rng(number),
            root_logit_std=deviation,
        )
        chosen |= {index for index, plan in enumerate(strategy.plan(view)) if plan}
    assert chosen == expected


def test_uniform_roots_get_the_floor_one_after_another() -> None:
    strategy = trace(budget=20, floor=4, roots="uniform")
    assert strategy.candidates(20) == 2
    assert strategy.plan(planning_view(roots(0.99, 0.01), total=20)) == [{ROOT: 5}, {ROOT: 5}]


def test_a_prefix_is_expanded_where_the_predictor_disagrees_with_the_outcome() -> None:
    tree = bare_tree([1.0, 0.0], turns=2)  # turns 1, 2 and 3, 4
    tree.turns[1].prediction, tree.turns[3].prediction = 0.1, 0.1
    assert expanded([tree], budget=3) == [{1: 1}]


def test_gains_fall_with_each_continuation_of_a_prefix() -> None:
    tree = bare_tree([1.0, 0.0], turns=2)
    # The gains are .5 .25 .125 ... and .2 .16 .128 ...
    tree.turns[1].prediction = 0.5
    tree.turns[3].prediction = 0.2
    assert expanded([tree], budget=6) == [{1: 2, 3: 2}]


def test_a_flipped_prefix_gets_no_more_in_the_next_round() -> None:
    tree = bare_tree([1.0, 0.0], turns=2)
    tree.turns[1].prediction, tree.turns[3].prediction = 0.1, 0.1
    tree.graft(1, chain(900, 1, 0.0))
    assert expanded([tree], budget=4) == [{3: 1}]


def test_a_merged_prefix_with_both_outcomes_gets_no_more() -> None:
    tree = empty_tree()
    tree.graft(ROOT, [turn(100), turn(110, reward=1.0)])
    tree.graft(ROOT, [turn(100), turn(120, reward=0.0)])
    tree.graft(ROOT, [turn(200), turn(210, reward=0.0)])
    merged = by_histories(tree).tree
    for index in merged.prefixes():
        merged.turns[index].prediction = 0.1
    assert expanded([merged], budget=4) == [{4: 1}]


def test_continuations_own_prefixes_are_not_expanded() -> None:
    tree = bare_tree([1.0], turns=2)
    tree.turns[1].prediction = 0.9
    tree.graft(1, chain(900, 2, 1.0))  # turns 3, 4
    tree.turns[3].prediction = 0.1
    assert expanded([tree], budget=3) == [{1: 1}]


def test_every_active_task_gets_an_equal_share_of_the_continuations() -> None:
    sure, unsure = bare_tree([1.0, 1.0], turns=2), bare_tree([1.0, 1.0], turns=2)
    for tree, v in ((sure, 0.99), (unsure, 0.5)):
        tree.turns[1].prediction = tree.turns[3].prediction = v
    assert expanded([sure, unsure], budget=8) == [{1: 1, 3: 1}, {1: 1, 3: 1}]


def test_where_tokens_are_the_budget_a_dear_prefix_must_gain_more() -> None:
    tree = bare_tree([1.0], turns=3)  # prefixes 1 and 2
    tree.turns[1].prediction, tree.turns[2].prediction = 0.4, 0.5  # flips with 0.6 and 0.5
    dear = {1: 30.0, 2: 10.0}

    def plan(cost):
        view = planning_view([tree], total=4, round=1, left=sum(dear.values()) / 2, cost=cost)
        return trace(budget=4).plan(view)[0]

    assert plan(lambda tree, anchor: 20.0) == {1: 1}
    assert plan(lambda tree, anchor: dear.get(anchor, 40.0)) == {2: 2}


@given(
    st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=5),
    st.integers(0, 30),
    st.sampled_from([None, 1, 3]),
    st.sampled_from(["active", "uniform"]),
)
def test_all_continuations_are_spent_even_without_prefixes(turns, more, cap, prefixes) -> None:
    trees = [bare_tree([1.0, 0.0], turns=n) for n in turns]
    plans = expanded(
        trees,
        budget=2 * len(trees) + more,
        prefix_cap=cap,
        prefixes=prefixes,
        pool=40,
    )
    assert sum(sum(plan.values()) for plan in plans) == more
    for tree, plan in zip(trees, plans, strict=True):
        assert set(plan) <= {ROOT, *tree.prefixes()}
        assert cap is None or all(count <= cap for anchor, count in plan.items() if anchor != ROOT)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"floorr": 3},
            r"allocation.options.trace_paper.floorr = 3: .*did you mean \S+trace_paper.floor\?",
        ),
        ({"floor": "x"}, r"allocation.options.trace_paper.floor = 'x'"),
        (
            {"roots": "some"},
            r"allocation.options.trace_paper.roots = 'some': must be one of active, uniform",
        ),
        ({"root_cap": 1}, r"allocation.options.trace_paper.root_cap = 1: must be at least 2"),
        (
            {"floor": 9},
            r"allocation.options.trace_paper.floor = 9: is above the budget of 8 rollouts",
        ),
        (
            {"root_cap": 2, "floor": 2},
            r"allocation.pool = 1: 4 bare rollouts with at most 2 a task",
        ),
        (
            {"root_cap": 3, "floor": 3},
            r"allocation.options.trace_paper.root_cap = 3: 4 bare rollouts cannot be split",
        ),
    ],
)
def test_options_that_cannot_work_are_one_line(options, said) -> None:
    with pytest.raises(SettingError, match=said):
        trace(pool=1 if "root_cap" in options and options["root_cap"] == 2 else 4, **options)


def test_more_predictions_than_the_policy_gave_are_not_needed() -> None:
    tree = bare_tree([1.0], turns=3)
    tree.turns[2].prediction = None
    plan = expanded([tree], budget=4)
    assert set(plan[0]) == {1} and np.isfinite(sum(plan[0].values()))


@pytest.mark.parametrize("cap", [4, 6])
def test_a_budget_of_tokens_may_pay_for_any_number_of_bare_rollouts(cap) -> None:
    settings = AllocationConfig(
        strategy="trace_paper",
        unit=BudgetUnit.tokens,
        budget=4000,
        expected_tokens=10,
        bare_share=1.0,
        options={"trace_paper": {"floor": 4, "root_cap": cap}},
    )
    for total in range(4, 60):
        [*plans] = make_strategy(settings).plan(planning_view(roots(*[0.5] * 9), total=total))
        counts = [plan[ROOT] for plan in plans if plan]
        assert all(4 <= count <= cap for count in counts) and sum(counts) > min(total, 9 * cap) - 4


def test_a_prefix_gets_no_more_than_its_cap_where_tokens_would_pay_for_more() -> None:
    cheap, dear = bare_tree([1.0, 0.0], turns=3), bare_tree([1.0, 0.0], turns=3)
    view = planning_view([cheap, dear], total=1000, round=1)
    view = replace(
        view, left=1000.0, cost=lambda tree, anchor: (12.0 if tree is cheap else 200.0) + anchor
    )
    for plan in trace(budget=1000, prefix_cap=2).plan(view):
        assert max(plan.values(), default=0) <= 2
