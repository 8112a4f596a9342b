import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.allocation import make_strategy
from megatron_trace.config import AllocationConfig, SettingError
from megatron_trace.tree import ROOT
from tests.unit.allocation.views import planning_view, roots


def pcl(budget=8, group=4, **options):
    settings = AllocationConfig(
        strategy="pcl", budget=budget, group=group, options={"pcl": options}
    )
    return make_strategy(settings)


def test_it_looks_at_k_candidates_for_each_task_it_takes() -> None:
    assert pcl(budget=24, group=8).candidates(24) == 12
    assert pcl(budget=24, group=8, k=2).candidates(24) == 6


def test_the_tasks_nearest_to_half_get_a_group_each() -> None:
    plan = pcl().plan(planning_view(roots(0.9, 0.55, 0.1, 0.35, 0.7, 0.5, 0.0, 1.0), total=8))
    assert plan == [{}, {ROOT: 4}, {}, {}, {}, {ROOT: 4}, {}, {}]


def test_tau_moves_the_difficulty() -> None:
    plan = pcl(tau=0.2).plan(planning_view(roots(0.9, 0.5, 0.1, 0.25), total=8))
    assert plan == [{}, {}, {ROOT: 4}, {ROOT: 4}]


def test_of_tasks_equally_far_the_earlier_is_taken() -> None:
    assert pcl(budget=4).plan(planning_view(roots(0.75, 0.25), total=4)) == [{ROOT: 4}, {}]


def test_the_allocations_calibrated_predictions_decide() -> None:
    view = planning_view(roots(0.5, 0.9), total=4)
    object.__setattr__(view, "calibrate", lambda prediction, roots: prediction - 0.4)
    assert pcl(budget=4).plan(view) == [{}, {ROOT: 4}]


@given(st.lists(st.floats(0, 1), min_size=3, max_size=12), st.floats(0, 1))
def test_no_task_left_out_is_nearer(success, tau) -> None:
    plan = pcl(budget=12, tau=tau).plan(planning_view(roots(*success), total=12))
    distance, taken = np.abs(np.array(success) - tau), np.array([bool(anchors) for anchors in plan])
    assert taken.sum() == 3
    assert taken.all() or distance[taken].max() <= distance[~taken].min()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"k": 0}, r"allocation.options.pcl.k = 0: must be at least 1"),
        ({"tau": 1.5}, r"allocation.options.pcl.tau = 1.5: must be at least 0 and at most 1"),
        ({"budget": 9}, r"allocation.budget = 9: must be a multiple of allocation.group"),
    ],
)
def test_what_cannot_work_is_one_line(settings, said) -> None:
    with pytest.raises(SettingError, match=said):
        pcl(**settings)
