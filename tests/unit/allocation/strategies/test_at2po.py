"""AT²PO expands where the policy was least certain."""

import pytest

from megatron_trace.allocation import make_strategy
from megatron_trace.allocation.strategies.at2po import scores
from megatron_trace.config import AllocationConfig, SettingError
from megatron_trace.tree import ROOT
from tests.unit.allocation.views import planning_view, roots
from tests.unit.trees import bare_tree, chain


def at2po(group=8, bare_share=0.5, **options):
    settings = AllocationConfig(
        strategy="at2po",
        budget=group,
        group=group,
        bare_share=bare_share,
        options={"at2po": options},
    )
    return make_strategy(settings)


def with_surprisal(tree, nats):
    """Turn -> mean surprisal of its two tokens."""
    for index, mean in nats.items():
        tree.turns[index].logprobs = [-2.0 * mean, 0.0]
    return tree


def test_the_score_is_the_mean_surprisal_less_a_penalty_for_each_sibling() -> None:
    tree = bare_tree([1.0, 0.0, 1.0], turns=3)  # 1 to 3, 4 to 6 and 7 to 9
    tree.graft(1, chain(900, 2, 0.0))  # 10, 11
    with_surprisal(tree, {1: 0.5, 2: 0.7, 4: 0.2, 5: 0.9, 7: 0.4, 8: 0.1, 10: 0.3})
    expected = {
        1: 0.5 - 0.1,
        2: 0.7 - 0.05,
        4: 0.2 - 0.1,
        5: 0.9,
        7: 0.4 - 0.1,
        8: 0.1,
        10: 0.3 - 0.05,
    }
    assert scores(tree, penalty=0.05) == pytest.approx(expected)


def test_the_papers_trees_have_ten_chains_and_twice_six_nodes() -> None:
    strategy = at2po(group=22, bare_share=10 / 22)
    assert strategy.plan(planning_view(roots(0.5), total=22)) == [{ROOT: 10}]
    tree = bare_tree([1.0, 0.0] * 5, turns=3)
    for _ in range(2):
        [plan] = strategy.plan(planning_view([tree], total=22, round=1))
        assert sorted(plan.values()) == [1] * 6
        for number, anchor in enumerate(plan):
            tree.graft(anchor, chain(900 + 10 * number, 1, 0.0))
    assert len(tree.rollouts) == 22


def test_a_smaller_group_expands_the_most_surprising_first() -> None:
    tree = with_surprisal(bare_tree([1.0, 0.0], turns=3), {1: 0.5, 2: 0.9, 4: 0.6, 5: 0.1})
    strategy = at2po(group=4)  # two chains, then two rounds of one node
    assert strategy.plan(planning_view([tree], total=4, round=1)) == [{2: 1}]
    tree.graft(2, chain(900, 2, 0.0))
    with_surprisal(tree, {7: 0.55})
    # The new turn has a sibling, which costs it 0.05, and so have 1 and 4.
    assert strategy.plan(planning_view([tree], total=4, round=2)) == [{2: 1}]


def test_branching_a_node_makes_its_children_less_attractive() -> None:
    tree = with_surprisal(bare_tree([1.0], turns=3), {1: 0.1, 2: 0.52})
    assert at2po(group=2).plan(planning_view([tree], total=2, round=1)) == [{2: 1}]
    for number in range(2):
        tree.graft(1, chain(900 + 50 * number, 1, 0.0))
    assert scores(tree, penalty=0.05)[2] == pytest.approx(0.42)
    assert scores(tree, penalty=0.25)[2] < scores(tree, penalty=0.25)[1]


def test_with_more_rollouts_than_nodes_the_best_get_a_second() -> None:
    tree = with_surprisal(bare_tree([1.0, 1.0], turns=2), {1: 0.5, 3: 0.9})
    assert at2po(group=5, bare_share=0.4, rounds=1).plan(
        planning_view([tree], total=5, round=1)
    ) == [{3: 2, 1: 1}]


@pytest.mark.parametrize("option", ["rounds", "nodes"])
def test_no_rounds_and_no_nodes_are_refused(option) -> None:
    with pytest.raises(
        SettingError, match=rf"allocation.options.at2po.{option} = 0: must be at least 1"
    ):
        at2po(**{option: 0})
