"""Times follow from FLOPs and bytes over stated rates."""

from dataclasses import replace

import pytest

from megatron_trace.plan.assumptions import Assumptions
from megatron_trace.plan.capacity import capacity
from megatron_trace.plan.duration import Durations
from megatron_trace.plan.flops import token_flops, training_flops
from megatron_trace.plan.machines import GPUS, Cluster
from megatron_trace.plan.planner import make_plan
from megatron_trace.plan.shape import Shape
from megatron_trace.plan.workload import workload

CLUSTER = Cluster(2, 8, GPUS["h100-80gb"])
FLEET = ("rollout.workers=4", "rollout.tensor_parallel=2", "parallel.tensor=4")


def plan(settings, model, *overrides, **assumed):
    return make_plan(
        settings(*FLEET, *overrides),
        model("Qwen3-14B"),
        CLUSTER,
        Assumptions(**assumed),
        exact=False,
    )


def test_flops_of_a_token_by_hand(model) -> None:
    matrices = 40 * (2 * 5120 * 5120 + 2 * 5120 * 1024 + 3 * 5120 * 17408)
    attention = 40 * 4 * 5120 * 2000  # queries times keys, weights times values
    assert token_flops(Shape.of(model("Qwen3-14B")), 2000) == 2 * matrices + attention


def test_training_is_three_forward_passes_and_recomputation_a_fourth(model, settings) -> None:
    shape = Shape.of(model("Qwen3-14B"))
    work = replace(workload(settings(), Assumptions()), learned=0.0)
    forward = work.computed * token_flops(shape, work.depth)
    assert training_flops(shape, settings(), work) == pytest.approx(3 * forward)
    full = settings("recompute.granularity=full")
    assert training_flops(shape, full, work) == pytest.approx(4 * forward)
    mlp = settings("recompute.granularity=selective", "recompute.modules=[mlp]")
    assert 3 * forward < training_flops(shape, mlp, work) < 4 * forward


def test_a_step_of_the_workload_by_hand(settings) -> None:
    config = settings(
        *("allocation.budget=1536", "allocation.bare_share=0.66667", "allocation.pool=512"),
        *("rollout.max_history_tokens=8192", "learning.batching.epochs=2"),
    )
    work = workload(config, Assumptions(history_share=0.5, sampled_share=0.5, branch_depth=0.5))
    assert (work.bare_rollouts, work.continuations, work.history) == (1024, 512, 4096)
    assert work.sampled == (1024 + 256) * 2048
    assert work.path == 1536 * 4096
    # 192 trees of 8: each prompt once, a bare rollout's rest, and a continuation's half.
    assert work.computed == (192 * 0.25 + 1024 * 0.75 + 512 * 0.5) * 4096
    assert (work.epochs, work.passes) == (2, 1)  # the old log-probabilities


def test_a_shared_token_is_computed_once_and_deep(settings) -> None:
    tree = workload(settings(), Assumptions(tree_reuse=4.0))
    rows = workload(settings("learning.batching.pack=rows"), Assumptions(tree_reuse=4.0))
    assert rows.computed == rows.path == tree.path == 4 * tree.computed
    assert rows.depth == rows.history / 2
    # Of a row of 4 parts the last one is computed.
    assert tree.depth == tree.history * 7 / 8


def test_more_engines_sample_faster_and_more_train_gpus_learn_faster(settings, model) -> None:
    few, many = plan(settings, model), plan(settings, model, "rollout.workers=2")
    assert few.seconds.sampling < many.seconds.sampling
    assert few.seconds.learning > many.seconds.learning


def test_a_faster_peak_is_a_shorter_phase(settings, model) -> None:
    slow, fast = plan(settings, model, train_utilisation=0.2), plan(settings, model)
    assert slow.seconds.compute == pytest.approx(2 * fast.seconds.compute)
    assert plan(settings, model, "precision.train=fp8").seconds.compute < fast.seconds.compute


def test_a_pipeline_waits_and_interleaving_waits_less(settings, model) -> None:
    plain = plan(settings, model, "parallel.tensor=2", "parallel.pipeline=4")
    finer = plan(
        settings, model, "parallel.tensor=2", "parallel.pipeline=4", "parallel.interleave=2"
    )
    assert plan(settings, model).seconds.bubble == 0.0
    assert finer.seconds.bubble == pytest.approx(plain.seconds.bubble / 2, rel=0.05)


def test_groups_across_nodes_wait_for_the_network(settings, model) -> None:
    near = plan(settings, model, "rollout.workers=4")
    far = make_plan(
        settings(*FLEET), model("Qwen3-14B"), Cluster(8, 2, CLUSTER.gpu), Assumptions(), exact=False
    )
    assert far.seconds.communicate > 5 * near.seconds.communicate


def test_the_fleet_that_keeps_the_trainer_busy_samples_as_long_as_it_learns(settings) -> None:
    seconds = Durations(prefill=10, decode=90, compute=40, communicate=10, bubble=0, weights=0)
    match = capacity(settings("rollout.workers=4", "rollout.tensor_parallel=2"), seconds)
    assert (match.busy_workers, match.busy_gpus) == (8, 16)
    assert match.train_share == pytest.approx(1 / 3)
