"""ARPO branches where the entropy rose after a tool call."""

import numpy as np
import pytest

from megatron_trace.allocation import make_strategy
from megatron_trace.config import AllocationConfig, SettingError
from megatron_trace.tree import ROOT, Requires
from tests.unit.allocation.views import planning_view, roots
from tests.unit.trees import bare_tree, chain


def arpo(group=16, **options):
    options = {"log_vocabulary": 2.0} | options
    return make_strategy(
        AllocationConfig(strategy="arpo", budget=group, group=group, options={"arpo": options})
    )


def with_entropies(tree, sums):
    """Turn -> sum of its two tokens' entropies."""
    for index, turn in enumerate(tree.turns[1:], start=1):
        turn.entropies = [sums[index] / 2] * 2
    return tree


def branches(strategy, tree, rounds=4000):
    """How often a first round branches at each anchor, [turns]."""
    counts = np.zeros(len(tree.turns))
    view = planning_view([tree], total=strategy.settings.group, round=1)
    for _ in range(rounds):
        strategy._passed = {}
        for anchor, count in strategy.expand(view, 0, 8).items():
            counts[anchor] += count
    return counts / rounds


def test_half_of_the_rollouts_begin_at_the_root() -> None:
    strategy = arpo(group=16)
    assert strategy.requires == {Requires.entropies}
    assert strategy.plan(planning_view(roots(0.5), total=16)) == [{ROOT: 8}]


def test_a_call_branches_with_the_probability_of_the_paper() -> None:
    # P(u − 0.2·ΔH ≤ 0.5) = 0.5 + 0.2·ΔH, ΔH = (H − H of the first turn) / ln |V|, of the turn after
    # the call.
    tree = with_entropies(bare_tree([1.0], turns=4), {1: 1.0, 2: 1.0, 3: 4.0, 4: 0.0})
    assert [arpo().rise(tree, anchor) for anchor in (1, 2, 3)] == [0.0, 1.5, -0.5]
    assert branches(arpo(), tree)[1:4] == pytest.approx([0.5, 0.8, 0.4], abs=0.03)


def test_a_rise_without_bounds_is_clamped_to_always_and_never() -> None:
    tree = with_entropies(bare_tree([1.0], turns=3), {1: 50.0, 2: 100.0, 3: 0.0})
    assert branches(arpo(), tree, rounds=100)[1:3] == pytest.approx([1.0, 0.0])


def test_a_beam_of_b_adds_up_to_b_less_one_branches() -> None:
    tree = with_entropies(bare_tree([1.0], turns=2), {1: 0.0, 2: 100.0})
    assert branches(arpo(beam=4), tree, rounds=10)[1] == 3


def test_only_the_first_tokens_count() -> None:
    tree = bare_tree([1.0], turns=2)
    tree.turns[1].entropies, tree.turns[2].entropies = [1.0, 9.0], [3.0, 5.0]
    assert arpo(tokens=1).rise(tree, 1) == 1.0


def test_the_shallowest_calls_come_first_and_the_share_is_kept() -> None:
    tree = bare_tree([1.0, 0.0], turns=3)  # 1, 2, 3 and 4, 5, 6
    with_entropies(tree, {1: 0.0, 2: 99.0, 3: 99.0, 4: 0.0, 5: 99.0, 6: 99.0})
    assert arpo(group=4).plan(planning_view([tree], total=4, round=0)) == [{1: 1, 4: 1}]


def test_each_call_is_passed_once_then_the_rest_goes_to_the_root() -> None:
    tree = with_entropies(bare_tree([1.0], turns=2), {1: 0.0, 2: 99.0})
    strategy = arpo(group=4)
    assert strategy.plan(planning_view([tree], total=4, round=0)) == [{1: 1}]
    tree.graft(1, chain(900, 2, 0.0))  # 3, 4
    with_entropies(tree, {1: 0.0, 2: 99.0, 3: 9.0, 4: 99.0})
    assert strategy.plan(planning_view([tree], total=4, round=1)) == [{3: 1}]
    tree.graft(3, chain(950, 1, 0.0))
    assert strategy.plan(planning_view([tree], total=4, round=2)) == [{ROOT: 1}]


@pytest.mark.parametrize(
    "option", [{"threshold": 1.0}, {"beam": 1}, {"tokens": 0}, {"log_vocabulary": 0.0}]
)
def test_options_that_cannot_work_are_refused(option) -> None:
    with pytest.raises(SettingError, match=f"allocation.options.arpo.{next(iter(option))} = "):
        arpo(**option)
