"""InfoTree's objective is monotone and submodular, and its greedy choice the best there is."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.allocation import make_strategy
from megatron_trace.allocation.informativeness import informativeness, sampled_entropy
from megatron_trace.config import AllocationConfig, SettingError
from megatron_trace.tree import ROOT, Requires
from tests.unit.allocation.views import planning_view, roots
from tests.unit.trees import bare_tree, chain

STATE = st.tuples(st.floats(0, 1), st.integers(1, 6), st.floats(0, 5))
WEIGHT = st.floats(0, 2)


def infotree(group=8, budget=None, **options):
    settings = AllocationConfig(
        strategy="infotree", budget=budget or group, group=group, options={"infotree": options}
    )
    return make_strategy(settings)


def total(states, expansions, c, weight):
    """F: states are (v, n, h)."""
    v, n, h = np.array(states).T
    k = np.array(expansions)
    return float(
        informativeness(v, n.astype(int), h, k, count_weight=c, entropy_weight=weight).sum()
    )


def test_the_objective_by_hand() -> None:
    value = informativeness(
        np.float64(0.5),
        np.int64(1),
        np.float64(2.0),
        np.int64(3),
        count_weight=0.1,
        entropy_weight=0.2,
    )
    # 1 − 2·0.5⁴ = 0.875; 0.1·√4 = 0.2; 0.2·2·(1 − 1/8) = 0.35
    assert value == pytest.approx(0.875 + 0.2 + 0.35)


@given(st.data(), st.lists(STATE, min_size=1, max_size=4), WEIGHT, WEIGHT)
def test_a_further_expansion_never_harms_and_adds_no_more_to_a_larger_set(
    data, states, c, weight
) -> None:
    some = data.draw(st.lists(st.integers(0, 4), min_size=len(states), max_size=len(states)))
    more = [k + data.draw(st.integers(0, 3)) for k in some]
    one = np.eye(len(states), dtype=int)[data.draw(st.integers(0, len(states) - 1))]
    gain = total(states, some + one, c, weight) - total(states, some, c, weight)
    gain_of_more = total(states, more + one, c, weight) - total(states, more, c, weight)
    assert gain_of_more >= -1e-12
    assert gain >= gain_of_more - 1e-12


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 1.0]), st.floats(0, 3), st.floats(0, 1)),
        min_size=2,
        max_size=3,
    ),
    st.integers(1, 4),
)
def test_the_greedy_choice_is_the_best_of_all(chains, share) -> None:
    tree = bare_tree([reward for reward, _, _ in chains], turns=2)
    for number, (_, nats, prediction) in enumerate(chains):
        tree.turns[2 * number + 1].prediction = prediction
        tree.turns[2 * number + 2].entropies = [nats]
    anchors = tree.prefixes()
    plan = infotree(group=16, staleness=9).expand(
        planning_view([tree], total=16, round=1), 0, share
    )
    states = [((reward + prediction) / 2, 1, nats) for reward, nats, prediction in chains]
    best = max(
        total(states, k, 0.25, 0.25)
        for k in product(range(share + 1), repeat=len(anchors))
        if sum(k) == share
    )
    assert sum(plan.values()) == share
    assert total(states, [plan.get(a, 0) for a in anchors], 0.25, 0.25) == pytest.approx(
        best, abs=1e-12
    )


def test_entropy_is_that_of_what_was_sampled_at_a_history() -> None:
    tree = bare_tree([1.0], turns=2)
    tree.graft(1, chain(900, 1, 0.0))
    tree.turns[1].entropies, tree.turns[2].entropies, tree.turns[3].entropies = (
        [4.0],
        [1.0, 2.0],
        [6.0],
    )
    assert list(sampled_entropy(tree)) == [4.0, 3.0, 0.0, 0.0]
    assert infotree().requires == {Requires.entropies}


def test_of_equal_states_the_more_uncertain_is_expanded() -> None:
    tree = bare_tree([1.0, 1.0, 1.0], turns=2)
    for anchor, prediction in ((1, 0.9), (3, 0.1), (5, 0.9)):
        tree.turns[anchor].prediction = prediction
    view = planning_view([tree], total=8, round=1)
    assert infotree(entropy_weight=0.0).expand(view, 0, 1) == {3: 1}
    tree.turns[6].entropies = [5.0]
    assert infotree(entropy_weight=1.0).expand(view, 0, 1) == {5: 1}


def test_no_more_than_the_staleness_is_unseen() -> None:
    tree = bare_tree([1.0, 0.0, 1.0, 0.0], turns=3)
    strategy = infotree(group=8, rescue=0.0, staleness=3, speculative=True)
    assert strategy.streams and not infotree().streams
    view = planning_view([tree], total=8, round=1)
    assert sum(strategy.plan(view)[0].values()) == 3
    view.pending[0][1] = 2
    assert sum(strategy.plan(view)[0].values()) == 1
    view.pending[0][1] = 3
    assert strategy.plan(view) == [{}]


def test_what_is_pending_counts_as_done() -> None:
    tree = bare_tree([1.0, 1.0], turns=2)
    view = planning_view([tree], total=8, round=1)
    strategy = infotree(group=8)
    assert strategy.expand(view, 0, 1) == {1: 1}
    view.pending[0][1] = 1
    assert strategy.expand(view, 0, 1) == {3: 1}


def test_what_was_expanded_before_counts_as_done() -> None:
    tree = bare_tree([1.0, 1.0], turns=2)
    tree.turns[1].prediction = tree.turns[3].prediction = 1.0
    tree.turns[2].entropies = [4.0]
    strategy, chosen = infotree(group=16, count_weight=0.5), []
    for number in range(4):
        [plan] = [strategy.expand(planning_view([tree], total=16, round=number + 1), 0, 1)]
        chosen += plan
        tree.graft(chosen[-1], chain(100 * number, 1, 1.0))
        tree.turns[-1].entropies = [4.0]
    # λ·h falls from 0.5 by half with every expansion; the count's gain is 0.21, 0.16, 0.13 at
    # either.
    assert chosen[0] == 1 and 3 in chosen


def test_a_tree_without_prefixes_waits_for_its_chains() -> None:
    tree = bare_tree([1.0], turns=1)
    strategy = infotree(group=4, rescue=0.0, staleness=2, speculative=True)
    view = planning_view([tree], total=4, round=1)
    view.pending[0][ROOT] = 1
    assert strategy.plan(view) == [{}]
    view.pending[0].clear()
    assert strategy.plan(view) == [{ROOT: 2}]


def test_the_reserve_goes_to_trees_that_are_still_uniform() -> None:
    strategy = infotree(group=8, budget=48, rescue=0.045, staleness=4)  # 2 of 48 rollouts
    trees = [bare_tree([1.0, 0.0] * 4, turns=2) for _ in range(4)]
    trees += [bare_tree([1.0] * 7, turns=2), bare_tree([1.0, 0.0] * 3 + [1.0], turns=2)]
    plan = strategy.plan(planning_view(trees, total=48, round=1))
    assert [sum(p.values()) for p in plan] == [0, 0, 0, 0, 2, 0]


def test_without_a_uniform_tree_the_reserve_fills_the_groups() -> None:
    strategy = infotree(group=8, budget=48, rescue=0.045, staleness=4)
    trees = [bare_tree([1.0, 0.0] * 4, turns=2) for _ in range(4)]
    trees += [bare_tree([1.0, 0.0] * 3 + [1.0], turns=2) for _ in range(2)]
    plan = strategy.plan(planning_view(trees, total=48, round=1))
    assert [sum(p.values()) for p in plan] == [0, 0, 0, 0, 1, 1]


def test_chains_come_first() -> None:
    assert infotree(group=8).plan(planning_view(roots(0.5), total=8)) == [{ROOT: 4}]


@pytest.mark.parametrize(
    "option", [{"staleness": 0}, {"rescue": 0.05}, {"count_weight": -1.0}, {"entropy_weight": -1.0}]
)
def test_options_that_cannot_work_are_refused(option) -> None:
    with pytest.raises(SettingError, match=f"allocation.options.infotree.{next(iter(option))} = "):
        infotree(**option)
