"""What a train rank holds is what hand arithmetic, Megatron's own formula and the real modules say."""

from dataclasses import replace

import pytest

from megatron_trace.plan.build import built, built_stages
from megatron_trace.plan.layout import Layout
from megatron_trace.plan.model_state import fp8_change, model_state, parameter_counts
from megatron_trace.plan.shape import Shape

TINY = {
    "model_type": "qwen3",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "vocab_size": 2000,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
}
SPARSE = TINY | {
    "model_type": "qwen3_moe",
    "tie_word_embeddings": False,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "norm_topk_prob": True,
}
OTHERS = {"qwen2": TINY | {"model_type": "qwen2"}, "llama": TINY | {"model_type": "llama"}}


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("Qwen3-0.6B", 596_049_920),
        ("Qwen3-8B", 8_190_735_360),
        ("Qwen3-14B", 14_768_307_200),
        ("Qwen3-30B-A3B", 30_532_122_624),
    ],
)
def test_the_models_have_their_published_numbers_of_weights(model, name, weights) -> None:
    assert Shape.of(model(name)).weights == weights


def test_qwen3_14b_on_8_gpus_by_hand(model, settings) -> None:
    # A layer: q and o 2·5120·5120, k and v 2·5120·1024, MLP 3·5120·17408, two norms 5120 and two of
    # 128.
    matrices = 40 * (2 * 5120 * 5120 + 2 * 5120 * 1024 + 3 * 5120 * 17408)
    vectors = 40 * (2 * 5120 + 2 * 128) + 5120
    tables = 2 * 5120 * 152_576  # 151,936 rows and padding to a multiple of 1024
    on_one = (matrices + tables) // 4 + vectors
    predictor = 5120 + 1
    config = settings("parallel.tensor=4")
    layout = Layout.of(config, 8)
    count = parameter_counts(Shape.of(model("Qwen3-14B")), layout, 0)
    assert (count.dense, count.predictor, count.matrices) == (on_one, predictor, matrices // 4)
    bytes_ = model_state(count, config, layout)
    assert bytes_.weights == 2 * on_one + 4 * predictor
    assert bytes_.gradients == 4 * on_one
    # Mean and ridge, 8 bytes a weight each, and the precision with 8 bytes a pair of weights.
    known = 8 * (2 * predictor + predictor**2)
    assert bytes_.optimizer == pytest.approx(12 * on_one / 2 + known, abs=2)


@pytest.mark.parametrize("name", ["Qwen3-8B", "Qwen3-14B"])
@pytest.mark.parametrize(
    ("tensor", "pipeline", "data"), [(1, 1, 1), (4, 1, 2), (2, 4, 1), (8, 2, 4)]
)
def test_weights_and_optimizer_are_as_in_megatrons_own_formula(
    model, settings, name, tensor, pipeline, data
) -> None:
    """megatron/training/theoretical_memory_usage.py, for the most loaded shard: 6 + 12/d bytes a
    parameter.

    Without the predictor. It does not know of normalised heads, and spreads the layers' norms over
    the ranks.
    """
    hf = model(name)
    hidden, layers = hf["hidden_size"], hf["num_hidden_layers"]
    queries = hf["num_attention_heads"] * hf["head_dim"]
    groups = hf["num_key_value_heads"] / hf["num_attention_heads"]
    attention = 2 * hidden * queries * (1 + groups)
    layer = attention + 2 * hidden * (hf["intermediate_size"] * 3 / 2 + 1)
    table = 152_576 * hidden
    theirs = ((layers * layer + hidden) / pipeline + table * (2 if pipeline == 1 else 1)) / tensor
    theirs *= 6 + 12 / data
    config = settings(f"parallel.tensor={tensor}", f"parallel.pipeline={pipeline}")
    layout = Layout.of(config, tensor * pipeline * data)
    stages = [parameter_counts(Shape.of(hf), layout, stage) for stage in range(pipeline)]
    ours = max(model_state(replace(count, predictor=0), config, layout).total for count in stages)
    assert ours == pytest.approx(theirs, rel=4e-3)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(
    ("hf", "world", "overrides"),
    [
        (TINY, 1, []),
        (TINY, 8, ["parallel.tensor=2", "parallel.pipeline=2", "parallel.context=2"]),
        (TINY, 4, ["parallel.pipeline=2", "parallel.interleave=2"]),
        (SPARSE, 8, ["parallel.tensor=2", "parallel.expert=4", "parallel.expert_tensor=1"]),
        (SPARSE, 8, ["parallel.tensor=2", "parallel.pipeline=2", "parallel.expert=2"]),
        (OTHERS["qwen2"], 2, ["parallel.tensor=2"]),
        (OTHERS["llama"], 2, []),
    ],
)
def test_arithmetic_counts_what_megatron_builds(settings, precision, hf, world, overrides) -> None:
    config = settings(f"precision.train={precision}", *overrides)
    layout = Layout.of(config, world)
    for stage, real in enumerate(built_stages(hf, config, world)):
        ours = model_state(parameter_counts(Shape.of(hf), layout, stage), config, layout)
        # Megatron pads its buffers to multiples of 128 entries, which shows in a model as small as
        # this.
        assert ours.weights == pytest.approx(real.weights, rel=0.01)
        assert ours.gradients == pytest.approx(real.gradients, rel=0.01)
        assert ours.optimizer == pytest.approx(real.optimizer, rel=0.01)


def test_all_ranks_together_hold_one_optimizer_state_and_the_first_the_predictors(settings) -> None:
    config = settings("precision.train=bf16", "parallel.tensor=2")
    shares = [built(TINY, config, 8, rank=rank).optimizer for rank in range(0, 8, 2)]
    count = parameter_counts(Shape.of(TINY), Layout.of(config, 8), 0)
    known = 8 * 65 * (65 + 2)
    assert sum(shares) == 12 * count.dense + known
    assert shares[0] - shares[1] == pytest.approx(known, abs=12 * 128)


def test_fp8_copies_are_added_or_take_the_place_of_bf16(settings) -> None:
    hopper, blackwell = (9, 0), (10, 0)
    cases = {
        ("tensorwise", False, hopper): 200,  # and a transposed copy
        ("tensorwise", False, blackwell): 100,
        ("blockwise", False, blackwell): 200,
        ("mxfp8", False, blackwell): 206,  # a scale for every 32 entries
        ("delayed", True, hopper): 0,
        ("delayed", True, blackwell): -100,
    }
    for (recipe, kept, capability), change in cases.items():
        config = settings(
            "precision.train=fp8",
            f"precision.fp8_recipe={recipe}",
            f"precision.fp8_param_gather={kept}",
        )
        assert fp8_change(100, config, 40, capability) == change
    first = settings(
        "precision.train=fp8",
        "precision.fp8_recipe=tensorwise",
        "precision.fp8_first_layers_bf16=10",
    )
    assert fp8_change(100, first, 40, hopper) == 150
    assert fp8_change(100, settings("precision.train=bf16"), 40, hopper) == 0


@pytest.mark.parametrize("modules", ["moe_act", "layernorm", "core_attn"])
def test_recomputation_changes_nothing_that_a_rank_holds(settings, modules) -> None:
    recompute = ("recompute.granularity=selective", f"recompute.modules=[{modules}]")
    assert built(SPARSE, settings(*recompute), 1, rank=0) == built(SPARSE, settings(), 1, rank=0)
