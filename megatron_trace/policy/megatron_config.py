"""Settings and config.json as Megatron's own configuration (table in docs/parallelism.md)."""

from typing import Any

import torch
from megatron.core.distributed import DistributedDataParallelConfig
from megatron.core.transformer import TransformerConfig

from megatron_trace.config import Config, Precision, Recompute
from megatron_trace.models.architecture import (
    head_width,
    key_value_heads,
    number_of_experts,
    sparse_layers,
)
from megatron_trace.models.layout import sequence_parallel
from megatron_trace.models.weight_map import Family
from megatron_trace.policy.precision import parameter_dtype, uses_transformer_engine


def transformer_config(hf: dict[str, Any], config: Config, family: Family) -> TransformerConfig:
    """Megatron's configuration of the model that `hf` (config.json) describes.

    Raises:
        ValueError: Megatron refuses the combination. (`check/` should have refused it earlier.)
    """
    dtype = parameter_dtype(config.precision)
    return TransformerConfig(
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype is torch.bfloat16,
        moe_token_dispatcher_type="alltoall",
        # The loss is already divided by the global number of tokens: gradients are only summed.
        calculate_per_token_loss=True,
        perform_initialization=False,
        gradient_accumulation_fusion=False,
        masked_softmax_fusion=False,
        # The fused SwiGLU saves only its input for the backward pass. Its kernels are compiled,
        # which is worth the wait only on GPUs.
        bias_activation_fusion=torch.cuda.is_available(),
        **_architecture(hf, family),
        **_parallel(config),
        **_recompute(config),
        **_fp8(config),
        **(_experts(hf, config) if number_of_experts(hf) else {}),
    )


def ddp_config(config: Config) -> DistributedDataParallelConfig:
    """Megatron's configuration of gradients and of the distributed optimizer's communication."""
    return DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        use_distributed_optimizer=True,
        overlap_grad_reduce=config.parallel.overlap_grad_reduce,
        overlap_param_gather=config.parallel.overlap_param_gather,
        fp8_param_gather=config.precision.train is Precision.fp8
        and config.precision.fp8_param_gather,
    )


def _architecture(hf: dict[str, Any], family: Family) -> dict[str, Any]:
    return {
        "num_layers": hf["num_hidden_layers"],
        "hidden_size": hf["hidden_size"],
        "ffn_hidden_size": hf["intermediate_size"],
        "num_attention_heads": hf["num_attention_heads"],
        "num_query_groups": key_value_heads(hf),
        "kv_channels": head_width(hf),
        "layernorm_epsilon": hf.get("rms_norm_eps", 1e-6),
        "normalization": "RMSNorm",
        "qk_layernorm": family.qk_layernorm,
        "add_qkv_bias": family.qkv_bias,
        "add_bias_linear": False,
        "gated_linear_unit": True,
        "activation_func": torch.nn.functional.silu,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
    }


def _parallel(config: Config) -> dict[str, Any]:
    parallel = config.parallel
    interleaved = parallel.interleave > 1
    return {
        "tensor_model_parallel_size": parallel.tensor,
        "sequence_parallel": sequence_parallel(parallel),
        "pipeline_model_parallel_size": parallel.pipeline,
        "virtual_pipeline_model_parallel_size": parallel.interleave if interleaved else None,
        # With two stages, batched messages of the two directions would be mixed up.
        "overlap_p2p_comm": interleaved,
        "batch_p2p_comm": not interleaved,
        "context_parallel_size": parallel.context,
    }


def _recompute(config: Config) -> dict[str, Any]:
    settings = config.recompute
    if settings.granularity is Recompute.none:
        return {}
    if settings.granularity is Recompute.selective:
        return {"recompute_granularity": "selective", "recompute_modules": list(settings.modules)}
    return {
        "recompute_granularity": "full",
        "recompute_method": settings.method,
        "recompute_num_layers": settings.layers,
    }


def _fp8(config: Config) -> dict[str, Any]:
    precision = config.precision
    if precision.train is not Precision.fp8:
        return {}
    first, last = precision.fp8_first_layers_bf16, precision.fp8_last_layers_bf16
    return {
        "fp8": precision.fp8_format.value,
        "fp8_recipe": precision.fp8_recipe.value,
        "fp8_amax_history_len": precision.fp8_amax_history,
        "fp8_amax_compute_algo": precision.fp8_amax_algorithm,
        "fp8_param": precision.fp8_param_gather,
        "first_last_layers_bf16": bool(first or last),
        "num_layers_at_start_in_bf16": first,
        "num_layers_at_end_in_bf16": last,
    }


def _experts(hf: dict[str, Any], config: Config) -> dict[str, Any]:
    sparse = sparse_layers(hf)
    return {
        "num_moe_experts": number_of_experts(hf),
        "moe_ffn_hidden_size": hf["moe_intermediate_size"],
        # Given a list, Megatron takes the layers for different ones and does not stack them in
        # checkpoints.
        "moe_layer_freq": 1 if all(sparse) else [int(layer) for layer in sparse],
        "moe_router_topk": hf["num_experts_per_tok"],
        # Whether the softmax that weighs the chosen experts runs over all experts or over the
        # chosen ones.
        "moe_router_pre_softmax": not hf.get("norm_topk_prob", False),
        "moe_router_load_balancing_type": "none",
        "moe_router_dtype": "fp32",
        "moe_grouped_gemm": uses_transformer_engine(parameter_dtype(config.precision)),
        "moe_router_padding_for_quantization": config.precision.train is Precision.fp8,
        "expert_model_parallel_size": config.parallel.expert,
        "expert_tensor_parallel_size": config.parallel.expert_tensor or config.parallel.tensor,
    }
