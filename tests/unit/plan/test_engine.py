"""What fits into a rollout GPU, by hand."""

import pytest

from megatron_trace.plan.assumptions import Assumptions
from megatron_trace.plan.engine import engine_memory
from megatron_trace.plan.machines import GIB, GPUS
from megatron_trace.plan.shape import Shape

H100 = GPUS["h100-80gb"]


def test_keys_and_values_of_qwen3_14b(model, settings) -> None:
    engine = engine_memory(Shape.of(model("Qwen3-14B")), settings(), H100, Assumptions())
    # Keys and values, bf16, layers, heads, head width: 160 KiB.
    assert engine.token == 2 * 2 * 40 * 8 * 128
    assert engine.weights == 2 * 14_768_307_200
    room = 0.85 * 81_559 * 2**20 - engine.weights - 5 * GIB
    assert engine.cached_tokens == pytest.approx(room / engine.token, abs=1)
    assert engine.histories == int(room // engine.token) // 8192


def test_two_gpus_share_weights_and_heads(model, settings) -> None:
    shape = Shape.of(model("Qwen3-14B"))
    one = engine_memory(shape, settings(), H100, Assumptions())
    two = engine_memory(shape, settings("rollout.tensor_parallel=2"), H100, Assumptions())
    assert (two.weights, two.token) == (one.weights // 2, one.token // 2)
    assert two.histories > 2 * one.histories


def test_a_model_that_leaves_no_room_does_not_fit(model, settings) -> None:
    shape = Shape.of(model("Qwen3-30B-A3B"))
    assert not engine_memory(shape, settings("rollout.memory=0.75"), H100, Assumptions()).fits
    assert engine_memory(shape, settings("rollout.tensor_parallel=2"), H100, Assumptions()).fits


def test_more_than_the_concurrency_is_never_live(model, settings) -> None:
    shape = Shape.of(model("Qwen3-0.6B"))
    engine = engine_memory(shape, settings("rollout.concurrency=16"), H100, Assumptions())
    assert engine.live == 16
