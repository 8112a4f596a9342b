"""What config.json may say, and the rotary frequencies that follow from it."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from megatron_trace.models.architecture import check_architecture, sparse_layers
from megatron_trace.policy.rope import rotary_frequencies

SIZES: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 32,
    "max_position_embeddings": 256,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ROPES: list[tuple[str, dict[str, Any]]] = [
    ("qwen3", {}),
    ("qwen3", {"rope_theta": 1e6}),
    ("qwen3", {"head_dim": 20, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
    ("llama", {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 3.0}}),
    (
        "llama",
        {
            "rope_theta": 5e5,
            "rope_scaling": {
                "rope_type": "llama3",
                "original_max_position_embeddings": 64,
                **LLAMA3,
            },
        },
    ),
    ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}}),
    (
        "qwen2",
        {
            "rope_theta": 1e6,
            "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        },
    ),
    (
        "qwen2",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "attention_factor": 0.8,
                "beta_fast": 16,
            }
        },
    ),
    (
        "qwen3",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "mscale": 0.7,
                "mscale_all_dim": 1.1,
            }
        },
    ),
]


def config(family: str, **special: Any) -> dict[str, Any]:
    return {"model_type": family, **SIZES, **(EXPERTS if family == "qwen3_moe" else {}), **special}


@pytest.mark.parametrize(("family", "special"), ROPES)
def test_frequencies_are_those_of_the_model_in_transformers(
    family: str, special: dict[str, Any]
) -> None:
    hf = config(family, **special)
    check_architecture(hf)
    rotary = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family].from_dict(hf)).model.rotary_emb
    frequencies, factor = rotary_frequencies(hf)
    assert torch.equal(frequencies, rotary.inv_freq)
    assert factor == rotary.attention_scaling


def rope(**parameters: Any) -> dict[str, Any]:
    return {"rope_parameters": parameters}


@pytest.mark.parametrize(
    ("family", "special", "message"),
    [
        ("gpt9", {}, "model_type='gpt9'"),
        ("llama", {"attention_bias": True}, "attention_bias=True"),
        ("llama", {"mlp_bias": True}, "mlp_bias=True"),
        ("qwen3", {"attention_bias": True}, "attention_bias=True"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window=True"),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types="),
        ("llama", {"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ("qwen3_moe", {"quantization_config": {"quant_method": "fp8"}}, "quantization_config="),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling=.*dynamic"),
        ("llama", rope(rope_type="longrope"), "rope_parameters=.*longrope"),
        ("qwen3", rope(full_attention={"rope_type": "default"}), "one rope_type for all layers"),
        ("llama", rope(rope_type="llama3", factor=2.0), "must give low_freq_factor"),
        (
            "llama",
            rope(rope_type="default", partial_rotary_factor=0.5),
            "partial_rotary_factor=0.5",
        ),
        ("qwen3_moe", {"num_experts": 0}, "num_experts is missing"),
        ("qwen3_moe", {"num_experts_per_tok": 5}, "num_experts_per_tok=5"),
        ("qwen3_moe", {"num_experts_per_tok": 1, "norm_topk_prob": True}, "norm_topk_prob=True"),
        ("qwen3_moe", {"mlp_only_layers": [0, 1, 2, 3]}, "no layer has experts"),
    ],
)
def test_what_would_be_computed_otherwise_is_refused(
    family: str, special: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_architecture(config(family) | special)


@pytest.mark.parametrize("family", ["qwen3", "qwen3_moe", "qwen2", "llama"])
def test_the_plain_model_of_each_family_is_let_pass(family: str) -> None:
    check_architecture(
        config(family, sliding_window=4096, use_sliding_window=False, hidden_act="silu")
    )


@pytest.mark.parametrize(
    ("special", "sparse"),
    [
        ({}, [True] * 4),
        ({"decoder_sparse_step": 2}, [False, True, False, True]),
        ({"mlp_only_layers": [0, 3]}, [False, True, True, False]),
    ],
)
def test_sparse_layers_are_those_of_transformers(
    special: dict[str, Any], sparse: list[bool]
) -> None:
    hf = config("qwen3_moe", **special)
    assert sparse_layers(hf) == sparse
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING["qwen3_moe"].from_dict(hf))
    assert [hasattr(layer.mlp, "experts") for layer in model.model.layers] == sparse
