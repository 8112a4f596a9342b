"""Megatron's modules for a layer, with Transformer Engine or without.

Differences between Megatron's versions in these modules are handled here.
"""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
from megatron.core.tensor_parallel import random
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.moe import moe_layer, moe_utils

from megatron_trace.policy.attention import TreeAttention
from megatron_trace.policy.norm import TorchRMSNorm
from megatron_trace.policy.precision import uses_transformer_engine


def block_spec(config: TransformerConfig, chunk: int | None) -> Any:
    """Megatron's modules for the layers of this pipeline stage, or of a part of it."""
    if uses_transformer_engine(config.params_dtype):
        spec = get_gpt_decoder_block_spec(config, use_transformer_engine=True, vp_stage=chunk)
        for layer in spec.layer_specs:
            layer.submodules.self_attention.submodules.core_attention = TreeAttention
        return spec
    _define_missing_names()
    spec = get_gpt_decoder_block_spec(
        config, use_transformer_engine=False, normalization="RMSNorm", vp_stage=chunk
    )
    spec.layer_norm = TorchRMSNorm
    for layer in (layer.submodules for layer in spec.layer_specs):
        attention = layer.self_attention.submodules
        layer.input_layernorm = layer.pre_mlp_layernorm = TorchRMSNorm
        attention.core_attention = TreeAttention
        if config.qk_layernorm:
            attention.q_layernorm = attention.k_layernorm = TorchRMSNorm
        # A ModuleSpec in Megatron 0.16, a partial in 0.19.
        if (getattr(layer.mlp, "module", None) or layer.mlp.func) is moe_layer.MoELayer:
            # In checkpoints this spec would name the norm before the experts as if it were fused
            # into a dense layer's linear. Transformer Engine's spec does not, and checkpoints must
            # be the same.
            layer.sharded_state_dict_keys_map = {
                "input_layernorm.": "self_attention.linear_qkv.layer_norm_"
            }
    return spec


def _define_missing_names() -> None:
    """Define names that Megatron uses but defines only with Transformer Engine installed."""
    no_fp8 = SimpleNamespace(is_fp8_enabled=lambda: False)
    for module, name, stand_in in (
        (moe_utils, "te_general_gemm", None),
        (random, "FP8GlobalStateManager", no_fp8),
        (random, "activation_recompute_forward", lambda **_: nullcontext()),
        (random, "fp8_autocast", lambda **_: nullcontext()),
    ):
        if not hasattr(module, name):
            setattr(module, name, stand_in)
