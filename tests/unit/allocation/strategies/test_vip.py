import json

import numpy as np
import pytest

from megatron_trace.allocation import Allocator, make_strategy
from megatron_trace.config import AllocationConfig, BudgetUnit, SettingError
from megatron_trace.tree import ROOT, Requires
from tests.unit.allocation.outcomes import half, sample_step
from tests.unit.allocation.views import planning_view, roots


def settings(budget=24, group=8, unit=BudgetUnit.rollouts, **options):
    return AllocationConfig(
        strategy="vip",
        budget=budget,
        group=group,
        unit=unit,
        expected_tokens=4,
        options={"vip": options},
    )


def prompts(*places):
    trees = roots(*[0.5] * len(places))
    for tree, place in zip(trees, places, strict=True):
        tree.embedding = [float(place)]
    return trees


def counts(plan):
    return [anchors.get(ROOT, 0) for anchors in plan]


def by_place(tree, number):
    """Prompts near 0 always fail, those near 9 always succeed, between them every other rollout
    does.
    """
    place = tree.embedding[0]
    return half(tree, number) if 3 < place < 6 else float(place > 6)


def test_it_asks_for_embeddings_and_a_batch_of_groups() -> None:
    strategy = make_strategy(settings())
    assert strategy.requires == {Requires.embedding} and strategy.candidates(24) == 3
    assert strategy.advantage == "rloo"


def test_knowing_nothing_it_is_uniform() -> None:
    assert counts(make_strategy(settings()).plan(planning_view(prompts(1, 2, 3), total=24))) == [
        8,
        8,
        8,
    ]


@pytest.mark.parametrize("objective", ["rloo", "dr_grpo"])
def test_it_learns_which_prompts_are_open(objective) -> None:
    allocator = Allocator(settings(objective=objective))
    for number in range(3):
        sample_step(allocator, prompts(0.1, 4.5, 9.1), by_place, f"step {number}")
    _, plans = sample_step(allocator, prompts(0.0, 4.4, 9.0), by_place, "last")
    fail, open_, succeed = counts(plans[0])
    assert (
        fail + open_ + succeed == 24
        and open_ > 8
        and min(fail, succeed) >= 4
        and max(fail, succeed) < 8
    )


@pytest.mark.parametrize(
    ("options", "split"),
    [
        # Going from n to n + 1 saves p(1 - p) / (n(n - 1)) of variance with RLOO.
        ({}, [6, 9, 9]),
        ({"objective": "dr_grpo"}, [5, 10, 9]),
        ({"lower": 7}, [7, 9, 8]),
        ({"upper": 8}, [8, 8, 8]),
    ],
)
def test_the_split_is_that_of_the_objective_within_the_bounds(options, split, monkeypatch) -> None:
    strategy = make_strategy(settings(**options))
    monkeypatch.setattr(strategy._process, "predict", lambda embeddings: np.array([0.1, 0.5, 0.3]))
    assert counts(strategy.plan(planning_view(prompts(1, 2, 3), total=24))) == split


def test_a_resumed_run_plans_as_one_that_went_on() -> None:
    one, other = Allocator(settings()), Allocator(settings())
    sample_step(one, prompts(0, 4, 9), by_place)
    other.restore(json.loads(json.dumps(one.state())))
    again = [sample_step(some, prompts(0, 4, 9), by_place, "step 2")[1] for some in (one, other)]
    assert again[0] == again[1]


def test_a_budget_of_tokens_is_shared_too() -> None:
    allocator = Allocator(settings(budget=96, unit=BudgetUnit.tokens))  # a rollout takes 4 tokens
    for number in range(3):
        places = np.linspace(0, 9, allocator.candidates())
        trees, _ = sample_step(allocator, prompts(*places), by_place, f"step {number}")
        assert sum(len(tree.rollouts) for tree in trees) == 24


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"objective": "grpo"},
            r"allocation.options.vip.objective = 'grpo': must be one of rloo, dr_grpo",
        ),
        (
            {"objective": "dr_grpo", "lower": 2},
            r"allocation.options.vip.lower = 2: must be at least 3",
        ),
        ({"lower": 9}, r"allocation.group = 8: must be from lower to upper \(9 to 32\)"),
        ({"memory": 0}, r"allocation.options.vip.memory = 0: must be at least 1"),
    ],
)
def test_what_cannot_work_is_one_line(given, said) -> None:
    with pytest.raises(SettingError, match=said):
        make_strategy(settings(**given))
