"""Where a model's tensors lie in a Megatron checkpoint."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_trace.models.weight_map import FAMILIES, expand
from megatron_trace.models.weight_rules import VOCABULARY
from megatron_trace.policy.convert.locations import empty_states, hf_shape, locate, stacks_layers

SIZES = st.integers(1, 7)


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    family = draw(st.sampled_from(sorted(FAMILIES)))
    groups, layers = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    dense = draw(st.lists(st.integers(0, layers - 1), max_size=layers - 1, unique=True))
    return {
        "model_type": family,
        "hidden_size": draw(SIZES),
        "intermediate_size": draw(SIZES),
        "moe_intermediate_size": draw(SIZES),
        "num_attention_heads": groups * draw(st.integers(1, 3)),
        "num_key_value_heads": groups,
        "head_dim": draw(SIZES),
        "num_hidden_layers": layers,
        "num_experts": draw(st.integers(1, 4)),
        "mlp_only_layers": dense,
        "vocab_size": draw(st.integers(3, 1100)),
    }


@given(configs(), st.booleans())
@settings(max_examples=60)
def test_the_rows_tile_the_stored_tensors_exactly(config: dict[str, Any], tied: bool) -> None:
    covered: dict[str, np.ndarray] = {}
    stacked = stacks_layers(config)
    for row in expand(FAMILIES[config["model_type"]], config, tied=tied):
        location = locate(row, config, stacked=stacked)
        tensor = covered.setdefault(
            location.key, np.zeros(location.axes + location.shape, dtype=int)
        )
        assert tensor.shape == location.axes + location.shape
        tensor[location.index] += 1
        read = sum(np.prod(hf_shape(name, config)) for name in row.hf)
        padding = np.prod(location.shape) - read
        assert padding == 0 or (
            row.rule is VOCABULARY and 0 < padding < 1024 * config["hidden_size"]
        )
    assert all((tensor == 1).all() for tensor in covered.values())


MIXED = {
    "model_type": "qwen3_moe",
    **{"hidden_size": 4, "intermediate_size": 6, "moe_intermediate_size": 5, "num_experts": 3},
    **{
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 2,
        "num_hidden_layers": 2,
        "vocab_size": 8,
    },
}


@pytest.mark.parametrize(
    ("dense", "key", "index"),
    [
        ([], "decoder.layers.mlp.experts.experts.linear_fc1.weight", (1, 2)),
        ([0], "decoder.layers.1.mlp.experts.experts.linear_fc1.weight", (2,)),
    ],
)
def test_an_expert_lies_beside_those_of_its_like(
    dense: list[int], key: str, index: tuple[int, ...]
) -> None:
    config = MIXED | {"mlp_only_layers": dense}
    rows = expand(FAMILIES["qwen3_moe"], config, tied=True)
    (row,) = (row for row in rows if row.hf[0] == "model.layers.1.mlp.experts.2.gate_proj.weight")
    location = locate(row, config, stacked=stacks_layers(config))
    assert (location.key, location.index, location.shape) == (key, index, (10, 4))


def test_states_are_named_for_every_module_that_might_ask() -> None:
    rows = expand(FAMILIES["qwen3_moe"], MIXED, tied=True)
    names = empty_states(locate(row, MIXED, stacked=True) for row in rows)
    for module in ("linear_qkv", "linear_proj", "core_attention", "q_layernorm", "k_layernorm"):
        assert f"decoder.layers.self_attention.{module}._extra_state/shard_1_2" in names
    assert "decoder.layers.mlp.experts.experts.linear_fc2._extra_state/shard_1.2_2.3" in names
    assert "decoder.final_layernorm._extra_state/shard_0_1" in names
    assert not any("router" in name or "embedding" in name for name in names)
