"""Activations grow and shrink with the settings as they should, and agree with published formulas."""

from dataclasses import replace

import pytest

from megatron_trace.plan.activations import activations
from megatron_trace.plan.assumptions import Assumptions
from megatron_trace.plan.layer_bytes import Kernels
from megatron_trace.plan.layout import Layout
from megatron_trace.plan.reach import Reach, reach
from megatron_trace.plan.shape import Shape
from megatron_trace.plan.workload import workload


@pytest.fixture
def of(model, settings):
    """Activations of Qwen3-14B's stage `stage` with 8192 tokens a micro-batch."""

    def make(
        *overrides: str,
        world: int = 8,
        stage: int = 0,
        batches: int = 64,
        reach: Reach | None = None,
        fused: bool = True,
    ):
        config = settings(*overrides)
        return activations(
            Shape.of(model("Qwen3-14B")),
            Layout.of(config, world),
            config,
            stage,
            micro_batches=batches,
            reach=reach,
            kernels=Kernels(fused_swiglu=fused),
        )

    return make


def test_a_layer_of_qwen3_14b_by_hand(of) -> None:
    hidden, query, key, ffn, heads, head = 5120, 5120, 1024, 17408, 40, 128
    split = 2 * (4 * hidden + 3 * query + 4 * key + 3 * ffn)  # bf16 elements, shared by 4 ranks
    floats = 4 * 2 + 4 * heads + 4 * (heads + 8)  # deviations of the norms, attention's sums
    each = (split + floats) / 4 + 2 * 4 * head  # cosines and sines lie whole on every rank
    assert of("parallel.tensor=4").layers == pytest.approx(40 * 8192 * each, rel=1e-6)


def test_megatrons_formula_says_nearly_the_same(of) -> None:
    """megatron/training/theoretical_memory_usage.py: s·b·h·(18 + 4·f/h) bytes a layer, with
    sequence parallelism.

    It counts the MLP's activation as f in and f out, where SwiGLU takes 2f, and not our heads'
    norms; but keys and values as wide as queries, and dropout.
    """
    theirs = 40 * 8192 * 5120 * (18 + 4 * 17408 / 5120) / 4
    assert theirs < of("parallel.tensor=4").layers < 1.2 * theirs


def test_a_fused_swiglu_saves_three_of_five_wide_elements(of) -> None:
    spared = of("parallel.tensor=4", fused=False).layers - of("parallel.tensor=4").layers
    assert spared == pytest.approx(40 * 8192 * 2 * (5 - 3) * 17408 / 4, rel=1e-6)


def test_gpus_fuse_swiglu_and_float32_has_no_transformer_engine(settings) -> None:
    single = settings("precision.train=float32")
    assert Kernels.of(settings(), "h100-80gb") == Kernels(
        transformer_engine=True, fused_swiglu=True
    )
    assert Kernels.of(single, "h100-80gb") == Kernels(transformer_engine=False, fused_swiglu=True)
    assert Kernels.of(single, "cpu") == Kernels(transformer_engine=False, fused_swiglu=False)


def test_the_output_layer_is_on_the_last_stage_only(of) -> None:
    first, last = (of("parallel.pipeline=2", stage=stage) for stage in (0, 1))
    assert first.output == 0
    assert last.output > 8192 * 152_576 * 2


@pytest.mark.parametrize(
    ("stage", "parts"), [(0, 4), (1, 3), (2, 2), (3, 1)], ids=lambda value: str(value)
)
def test_a_stage_holds_the_micro_batches_between_its_forward_and_backward(of, stage, parts) -> None:
    alone = of("parallel.pipeline=4", stage=3).layers
    assert of("parallel.pipeline=4", stage=stage).layers == pytest.approx(parts * alone, rel=1e-6)


def test_the_interleaved_schedule_holds_more(of) -> None:
    plain = of("parallel.pipeline=4").layers
    more = of("parallel.pipeline=4", "parallel.interleave=2").layers
    # (2·3 + 4 + 1) parts of 5 layers, against 4 of 10.
    assert more / plain == pytest.approx(11 * 5 / (4 * 10), rel=1e-6)


def test_gathered_keys_and_values_of_qwen3_14b_by_hand(of) -> None:
    """4 KiB for each key of a path, layer and bf16; core_attn gathers them again."""
    core = ("recompute.granularity=selective", "recompute.modules=[core_attn]")
    once, thrice = Reach(1.0), Reach(3.0)
    more = of("parallel.tensor=4", reach=thrice).layers - of("parallel.tensor=4").layers
    assert more == pytest.approx(40 * 8192 * 2 * 4096 / 4, rel=1e-6)
    kept, again = (of("parallel.tensor=4", *core, reach=each).layers for each in (once, thrice))
    # Of the one layer whose attention is computed again at a time.
    assert again - kept == pytest.approx(8192 * 2 * 4096 / 4, rel=1e-6)


def test_context_parallel_ranks_gather_what_cuts_divide(settings) -> None:
    """One row that fills the micro-batch: its 2c chunks see 1 + 2 + … + 2c chunks of keys."""
    config = settings(
        *("parallel.context=2", "learning.batching.pack=rows", "rollout.max_history_tokens=8192")
    )
    work = workload(config, Assumptions(history_share=1.0))
    assert reach(config, Layout.of(config, 8), work).keys == (1 + 2 + 3 + 4) / 4
    alone = settings("learning.batching.pack=rows")
    work = workload(alone, Assumptions())
    assert reach(alone, Layout.of(alone, 8), work) == Reach()


def test_parallelism_divides(of) -> None:
    whole = of("parallel.tensor=1").layers
    assert of("parallel.context=4").layers == pytest.approx(whole / 4, rel=1e-6)
    split = of("parallel.tensor=4").layers
    alike = of("parallel.tensor=4", "parallel.sequence=false").layers
    assert whole / 4 < split < alike < whole


def test_recomputation_saves_memory_in_its_order(of) -> None:
    none = of().layers
    mlp = of("recompute.granularity=selective", "recompute.modules=[mlp]").layers
    full = of("recompute.granularity=full").layers
    block = of("recompute.granularity=full", "recompute.method=block", "recompute.layers=20").layers
    assert full < mlp < none
    assert full < block < none


def test_full_recomputation_by_hand(of) -> None:
    layer = of().layers / 40
    assert of("recompute.granularity=full").layers == pytest.approx(
        40 * 8192 * 5120 * 2 + layer, rel=1e-6
    )


def test_fp8_saves_inputs_of_matrix_products_in_one_byte(of) -> None:
    ours = of().layers - of("precision.train=fp8").layers
    # The normed hidden states twice and the MLP's product, less a copy of attention's output.
    assert ours == pytest.approx(40 * 8192 * (2 * 5120 + 17408 - 5120), rel=1e-6)


def test_experts_save_what_is_sent_to_them(model, settings) -> None:
    shape = Shape.of(model("Qwen3-30B-A3B"))

    def layers(*overrides: str) -> int:
        config = settings(*overrides)
        return activations(shape, Layout.of(config, 8), config, 0, micro_batches=8).layers

    assert layers("parallel.expert=8") == layers("parallel.expert=1")  # as many tokens come as go
    dense = replace(shape, moe_layers=(False,) * shape.layers)
    assert (
        layers()
        > activations(dense, Layout.of(settings(), 8), settings(), 0, micro_batches=8).layers
    )
    recomputed = layers("recompute.granularity=selective", "recompute.modules=[moe]")
    assert (
        recomputed
        < layers("recompute.granularity=selective", "recompute.modules=[moe_act]")
        < layers()
    )
