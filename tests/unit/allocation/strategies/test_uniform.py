from megatron_trace.allocation import make_strategy
from megatron_trace.config import AllocationConfig
from megatron_trace.tree import ROOT
from tests.unit.allocation.views import planning_view, roots


def test_every_task_gets_its_group_whatever_is_predicted() -> None:
    strategy = make_strategy(AllocationConfig(strategy="uniform", budget=24, group=8))
    assert strategy.candidates(24) == 3
    assert strategy.plan(planning_view(roots(0.0, 0.5, 1.0), total=24)) == [{ROOT: 8}] * 3


def test_with_less_left_fewer_tasks_get_theirs() -> None:
    strategy = make_strategy(AllocationConfig(strategy="uniform", budget=24, group=8))
    assert strategy.plan(planning_view(roots(0.0, 0.5, 1.0), total=24, left=17)) == [
        {ROOT: 8},
        {ROOT: 8},
        {},
    ]
