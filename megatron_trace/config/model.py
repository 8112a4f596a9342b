"""The settings of the policy: model, parallel layout, number formats, recomputation."""

from dataclasses import dataclass

from megatron_trace.config.choices import FP8Format, FP8Recipe, Precision, Recompute
from megatron_trace.config.setting import setting


@dataclass
class ModelConfig:
    """The start policy."""

    path: str = setting(
        "", "start policy: a HF folder (config, tokenizer, safetensors) or a checkpoint"
    )


@dataclass
class ParallelConfig:
    """Parallel layout of the train ranks, in Megatron-Core's terms."""

    tensor: int = setting(1, "tensor-parallel size of the train ranks", at_least=1)
    sequence: bool | None = setting(
        None,
        "sequence parallelism over the tensor-parallel ranks; null: on where parallel.tensor > 1",
    )
    pipeline: int = setting(1, "pipeline-parallel size of the train ranks", at_least=1)
    interleave: int = setting(
        1,
        "model chunks in each pipeline stage (interleaved schedule); 1: not interleaved",
        at_least=1,
    )
    context: int = setting(
        1, "context-parallel size: the number of ranks that share a sequence", at_least=1
    )
    expert: int = setting(1, "expert-parallel size of the train ranks (MoE models)", at_least=1)
    expert_tensor: int | None = setting(
        None, "tensor-parallel size of the experts (MoE models); null: parallel.tensor", at_least=1
    )
    overlap_grad_reduce: bool = setting(False, "reduce gradients during the backward pass")
    overlap_param_gather: bool = setting(
        False, "gather the updated weights during the next forward pass"
    )


@dataclass
class PrecisionConfig:
    """Number formats of training and sampling."""

    train: Precision = setting(
        Precision.bf16, "float32, bf16 or fp8 (Transformer Engine on Hopper or newer)"
    )
    fp8_recipe: FP8Recipe = setting(
        FP8Recipe.tensorwise, "Transformer Engine recipe: tensorwise, delayed, blockwise or mxfp8"
    )
    fp8_format: FP8Format = setting(
        FP8Format.hybrid, "hybrid (E4M3 forward, E5M2 for gradients) or e4m3 (both)"
    )
    fp8_amax_history: int = setting(
        1024, "steps for which the delayed recipe keeps the largest values", at_least=1
    )
    fp8_amax_algorithm: str = setting(
        "max",
        "which value of that history sets the scale of the delayed recipe",
        one_of=("max", "most_recent"),
    )
    fp8_first_layers_bf16: int = setting(
        0, "number of first layers of the model that stay bf16", at_least=0
    )
    fp8_last_layers_bf16: int = setting(
        0, "number of last layers of the model that stay bf16", at_least=0
    )
    fp8_param_gather: bool = setting(
        False, "keep and gather the weights in FP8; the optimizer keeps float32 copies"
    )
    rollout: str = setting(
        "bfloat16", "dtype of the fleet's engines", one_of=("float32", "bfloat16", "float16")
    )


@dataclass
class RecomputeConfig:
    """Activation recomputation."""

    granularity: Recompute = setting(
        Recompute.none,
        "activations that the backward pass recomputes: none, selective (of some modules) or full",
    )
    modules: list[str] = setting(
        ["core_attn"],
        "modules of selective recomputation",
        one_of=("core_attn", "layernorm", "mlp", "moe_act", "moe"),
    )
    method: str = setting(
        "uniform",
        "full recomputation: uniform (every chunk of layers) or block (the first layers of a "
        "stage)",
        one_of=("uniform", "block"),
    )
    layers: int = setting(
        1,
        "full recomputation: layers of a uniform chunk, or layers of a stage that recompute "
        "(block)",
        at_least=1,
    )
