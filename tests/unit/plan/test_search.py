"""A search keeps what a run would accept and a GPU can hold."""

import pytest

from megatron_trace.check.layout import check_layout
from megatron_trace.check.load import load_config
from megatron_trace.config import Recompute, SettingError
from megatron_trace.plan.assumptions import Assumptions
from megatron_trace.plan.layout import check_engines, train_gpus
from megatron_trace.plan.machines import GPUS, Cluster
from megatron_trace.plan.planner import make_plan
from megatron_trace.plan.search import overrides, search

H100 = GPUS["h100-80gb"]


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("Qwen3-14B", 1),
        pytest.param("Qwen3-14B", 2, marks=pytest.mark.slow),
        pytest.param("Qwen3-30B-A3B", 3, marks=pytest.mark.slow),
    ],
)
def test_what_is_found_fits_and_passes_the_checks_of_a_run(model, settings, name, nodes) -> None:
    hf, cluster = model(name), Cluster(nodes, 8, H100)
    found = search(settings(), hf, cluster, Assumptions())
    assert found.best and len(found.best) <= 10
    for plan in found.best:
        check_layout(plan.config, hf, train_gpus(plan.config, cluster))
        assert plan.fits
    steps = [plan.seconds.step for plan in found.best]
    assert steps == sorted(steps)


def test_nothing_is_found_where_the_model_is_too_large(model, settings) -> None:
    found = search(settings(), model("Qwen3-30B-A3B"), Cluster(1, 2, H100), Assumptions())
    assert not found.best
    assert found.too_large + found.refused == found.tried


def test_the_best_is_no_slower_than_the_shipped_layout(model) -> None:
    config, cluster = load_config("configs/qwen3_14b.yaml"), Cluster(2, 8, H100)
    shipped = make_plan(config, model("Qwen3-14B"), cluster, Assumptions(), exact=False)
    assert (
        search(config, model("Qwen3-14B"), cluster, Assumptions()).best[0].seconds.step
        <= shipped.seconds.step
    )


def test_the_overrides_give_the_plan_again(model, settings) -> None:
    plan = search(settings(), model("Qwen3-30B-A3B"), Cluster(3, 8, H100), Assumptions()).best[0]
    assert settings(*overrides(plan).split(" ")) == plan.config


@pytest.mark.parametrize(
    "granularity",
    [
        Recompute.none,
        pytest.param(Recompute.selective, marks=pytest.mark.slow),
        pytest.param(Recompute.full, marks=pytest.mark.slow),
    ],
)
def test_whatever_the_configuration_sets_the_overrides_prevail(
    model, settings, granularity
) -> None:
    set_otherwise = (
        *("recompute.granularity=full", "recompute.method=block", "recompute.layers=3"),
        *("recompute.modules=[core_attn]", "parallel.tensor=2", "parallel.sequence=true"),
        *("parallel.expert=2", "parallel.expert_tensor=2"),
    )
    cluster = Cluster(3, 8, H100)
    plans = search(
        settings(*set_otherwise), model("Qwen3-30B-A3B"), cluster, Assumptions(), keep=10_000
    ).best
    plan = next(plan for plan in plans if plan.config.recompute.granularity is granularity)
    assert settings(*set_otherwise, *overrides(plan).split(" ")) == plan.config


def test_what_refuses_all_layouts_is_said(model, settings) -> None:
    config = settings("learning.batching.micro_batch_tokens=1024")
    found = search(config, model("Qwen3-14B"), Cluster(1, 8, H100), Assumptions())
    assert found.refused == found.tried == sum(count for count, _ in found.refusals)
    assert any(
        "learning.batching.micro_batch_tokens = 1024: must hold" in message
        for _, message in found.refusals
    )


def test_one_gpu_leaves_nothing_to_search(model, settings) -> None:
    with pytest.raises(SettingError, match="need one each"):
        search(settings(), model("Qwen3-14B"), Cluster(1, 1, H100), Assumptions())


def test_no_engine_spans_nodes_of_six(model, settings) -> None:
    found = search(settings(), model("Qwen3-0.6B"), Cluster(3, 6, H100), Assumptions(), keep=10_000)
    assert found.best
    for plan in found.best:
        check_engines(plan.config, plan.cluster, plan.layout.world)
