"""Host memory of a checkpoint, by hand."""

import pytest

from megatron_trace.plan.host import checkpoint_host_bytes
from megatron_trace.plan.layout import Layout
from megatron_trace.plan.shape import Shape


def test_the_first_node_gathers_the_whole_state_of_qwen3_14b(model, settings) -> None:
    shape, config = Shape.of(model("Qwen3-14B")), settings("parallel.tensor=4")
    # Matrices and tables once, norms on each of four ranks; state twice, and bf16 weights. What is
    # known of the predictor's 5,121 weights: mean, prior and precision in float64.
    parameters = 13_212_057_600 + 1_562_378_240 + 4 * 424_960
    for world in (4, 8, 32):
        found = checkpoint_host_bytes(shape, Layout.of(config, world), config, 8)
        assert found == parameters * (2 * 12 + 2) + 8 * 5_121 * 5_123


@pytest.mark.parametrize(("world", "share"), [(8, 1.0), (16, 0.5)])
def test_pipeline_stages_on_two_nodes_share_it(model, settings, world: int, share: float) -> None:
    shape = Shape.of(model("Qwen3-14B"))
    config = settings("parallel.tensor=4", "parallel.pipeline=2")
    found = checkpoint_host_bytes(shape, Layout.of(config, world), config, 8)
    assert found == pytest.approx(share * 26 * shape.weights, rel=0.01)


def test_experts_count_once(model, settings) -> None:
    shape = Shape.of(model("Qwen3-30B-A3B"))
    config = settings("parallel.tensor=2", "parallel.expert=8", "parallel.expert_tensor=1")
    found = checkpoint_host_bytes(shape, Layout.of(config, 16), config, 8)
    assert found == pytest.approx(26 * shape.weights, rel=0.01)
