"""A search keeps what a run would accept and a GPU can hold."""

import pytest

from megatron_trace.check.layout import check_layout
from megatron_trace.config_check import load_config
from megatron_trace.plan.assumptions import Assumptions
from megatron_trace.plan.layout import train_gpus
from megatron_trace.plan.machines import GPUS, Cluster
from megatron_trace.plan.planner import make_plan
from megatron_trace.plan.search import overrides, search

H100 = GPUS["h100-80gb"]


@pytest.mark.parametrize(("name", "nodes"), [("Qwen3-14B", 1), ("Qwen3-14B", 2), ("Qwen3-30B-A3B", 3)])
def test_what_is_found_fits_and_passes_the_checks_of_a_run(model, settings, name, nodes):
    hf, cluster = model(name), Cluster(nodes, 8, H100)
    found = search(settings(), hf, cluster, Assumptions())
    assert found.best and len(found.best) <= 10
    for plan in found.best:
        check_layout(plan.config, hf, train_gpus(plan.config, cluster))
        assert plan.fits
    steps = [plan.seconds.step for plan in found.best]
    assert steps == sorted(steps)


def test_nothing_is_found_where_the_model_is_too_large(model, settings):
    found = search(settings(), model("Qwen3-30B-A3B"), Cluster(1, 2, H100), Assumptions())
    assert not found.best
    assert found.too_large + found.refused == found.tried


def test_the_best_is_no_slower_than_the_shipped_layout(model):
    config, cluster = load_config("configs/qwen3_14b.yaml"), Cluster(2, 8, H100)
    shipped = make_plan(config, model("Qwen3-14B"), cluster, Assumptions(), exact=False)
    assert (
        search(config, model("Qwen3-14B"), cluster, Assumptions()).best[0].seconds.step
        <= shipped.seconds.step
    )


def test_the_overrides_give_the_plan_again(model, settings):
    plan = search(settings(), model("Qwen3-30B-A3B"), Cluster(3, 8, H100), Assumptions()).best[0]
    assert settings(*overrides(plan).split(" ")) == plan.config
