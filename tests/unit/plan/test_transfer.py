"""What a weight transfer takes beside what a train rank holds all the time."""

from dataclasses import replace

import pytest

from megatron_trace.plan.layout import Layout
from megatron_trace.plan.machines import GIB
from megatron_trace.plan.memory import StageMemory
from megatron_trace.plan.shape import Shape
from megatron_trace.plan.transfer import transfer_bytes

TABLE = 2 * 152_576 * 5120  # Qwen3-14B's padded vocabulary in bf16


@pytest.mark.parametrize(
    ("backend", "tensor", "stage", "expected"),
    [
        ("nccl", 4, 0, 2 * TABLE + 2 * TABLE),
        ("nccl", 4, 1, 2 * TABLE),
        ("nccl", 1, 0, TABLE + 2 * TABLE),
        ("ray", 4, 0, 2 * TABLE),
    ],
)
def test_qwen3_14b_by_hand(
    model, settings, backend: str, tensor: int, stage: int, expected: int
) -> None:
    config = settings(
        f"parallel.tensor={tensor}", "parallel.pipeline=2", f"rollout.weight_backend={backend}"
    )
    shape, layout = Shape.of(model("Qwen3-14B")), Layout.of(config, 8)
    assert transfer_bytes(shape, layout, config, stage) == expected


def test_a_small_model_is_packed_into_buffers_of_a_gib(model, settings) -> None:
    config, shape = settings(), Shape.of(model("Qwen3-0.6B"))
    table = 2 * shape.padded_vocabulary * shape.hidden
    assert transfer_bytes(shape, Layout.of(config, 4), config, 0) == table + 2 * GIB


def test_the_peak_has_activations_or_a_transfer_but_not_both() -> None:
    memory = StageMemory(
        weights=1, gradients=2, optimizer=4, activations=8, transfer=6, reserve=16, capacity=31
    )
    assert memory.total == 31 and memory.fits
    assert replace(memory, transfer=9).total == 32 and not replace(memory, transfer=9).fits
