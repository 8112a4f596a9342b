import pytest

from megatron_trace.allocation import Allocator
from megatron_trace.config import AllocationConfig, SettingError
from tests.unit.allocation.outcomes import half, never, sample_step
from tests.unit.allocation.views import roots


def dapo(budget=32, group=4, **options):
    return Allocator(
        AllocationConfig(strategy="dapo", budget=budget, group=group, options={"dapo": options})
    )


def groups(plans):
    """Tasks that begin in each round."""
    return [sum(bool(tree) for tree in plan) for plan in plans]


def fresh(count=8):
    return roots(*[0.5] * count)


def test_a_step_ends_when_half_of_its_groups_are_mixed() -> None:
    trees, plans = sample_step(dapo(), fresh(), half)
    assert groups(plans) == [2, 2]  # of 8 groups in 4 rounds
    assert sum(len(tree.rollouts) for tree in trees) == 16


def test_without_contrast_the_whole_budget_is_spent_on_fresh_tasks() -> None:
    trees, plans = sample_step(dapo(), fresh(), never)
    assert groups(plans) == [2, 2, 2, 2]
    assert [len(tree.rollouts) for tree in trees] == [4] * 8


def test_only_mixed_groups_count() -> None:
    trees = roots(0.0, 0.0, 0.5, 0.0, 0.5, 0.5, 0.5, 0.5)
    _, plans = sample_step(
        dapo(), trees, lambda tree, n: half(tree, n) if tree.turns[0].prediction else 0.0
    )
    assert groups(plans) == [2, 2, 2, 2]  # 0, 1, 3 and 4 after each


def test_enough_says_how_many_groups_must_be_mixed() -> None:
    assert groups(sample_step(dapo(enough=2), fresh(), half)[1]) == [2]
    assert groups(sample_step(dapo(enough=5), fresh(), half)[1]) == [2, 2, 2]


def test_rounds_are_a_cap_and_their_groups_are_what_the_budget_pays_for() -> None:
    assert groups(sample_step(dapo(rounds=1), fresh(), half)[1]) == [8]
    assert groups(sample_step(dapo(rounds=3), fresh(), never)[1]) == [3, 3, 2]
    assert groups(sample_step(dapo(rounds=20), fresh(), never)[1]) == [1] * 8


def test_what_a_step_leaves_is_not_carried_over() -> None:
    allocator = dapo()
    for _ in range(3):
        assert allocator.candidates() == 8
        trees, _ = sample_step(allocator, fresh(), half)
        assert sum(len(tree.rollouts) for tree in trees) == 16


def test_graded_rewards_are_mixed_where_they_differ() -> None:
    _, plans = sample_step(dapo(enough=1), fresh(), lambda tree, n: 0.25 if n else 0.5)
    assert groups(plans) == [2]


@pytest.mark.parametrize("name", ["rounds", "enough"])
def test_what_cannot_work_is_one_line(name) -> None:
    with pytest.raises(
        SettingError, match=rf"allocation.options.dapo.{name} = 0: must be at least 1"
    ):
        dapo(**{name: 0})
