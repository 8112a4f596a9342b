"""FP8 settings that Megatron-Core or Transformer Engine refuse, on any machine."""

from typing import Any

from megatron_trace.config import (
    Config,
    FP8Recipe,
    Precision,
    PrecisionConfig,
    SettingError,
    check_bounds,
)
from megatron_trace.models.architecture import head_width, key_value_heads, number_of_experts
from megatron_trace.models.layout import fp8_multiple


def check_precision(config: Config, hf: dict[str, Any]) -> None:
    """Refuse FP8 settings that cannot train the model that `hf` (config.json) describes.

    The `fp8_*` settings are looked at only where `precision.train` is fp8.

    Raises:
        SettingError: at the first setting that cannot work.
    """
    if config.precision.train is not Precision.fp8:
        return
    check_bounds(config.precision, "precision.")
    _check_recipe(config.precision)
    _check_bf16_layers(config, hf)
    _check_widths(config, hf)


def _check_recipe(precision: PrecisionConfig) -> None:
    if precision.fp8_param_gather and precision.fp8_recipe is FP8Recipe.mxfp8:
        remedy = (
            "Transformer Engine's MXFP8 weights cannot lie in Megatron's buffers; use "
            "another fp8_recipe, or false"
        )
        raise SettingError("precision.fp8_param_gather", True, remedy)


def _check_bf16_layers(config: Config, hf: dict[str, Any]) -> None:
    precision, layers = config.precision, hf["num_hidden_layers"]
    stage = layers // config.parallel.pipeline
    ends = {
        "precision.fp8_first_layers_bf16": precision.fp8_first_layers_bf16,
        "precision.fp8_last_layers_bf16": precision.fp8_last_layers_bf16,
    }
    for name, count in ends.items():
        if count > stage:
            remedy = f"must be at most the layers of a pipeline stage ({stage})"
            raise SettingError(name, count, remedy)
        if count and precision.fp8_recipe is FP8Recipe.delayed:
            remedy = (
                "the delayed recipe scales all layers together; use another "
                "precision.fp8_recipe, or 0"
            )
            raise SettingError(name, count, remedy)
    if sum(ends.values()) >= layers:
        remedy = f"leaves none of the {layers} layers in FP8; lower it, or use precision.train=bf16"
        raise SettingError("precision.fp8_last_layers_bf16", precision.fp8_last_layers_bf16, remedy)


def _check_widths(config: Config, hf: dict[str, Any]) -> None:
    """Every matrix of a rank has a number of rows and columns that its FP8 kernels can take."""
    multiple, tensor = fp8_multiple(config), config.parallel.tensor
    expert_tensor = config.parallel.expert_tensor or tensor
    queries, pairs = (
        hf["num_attention_heads"] * head_width(hf),
        2 * key_value_heads(hf) * head_width(hf),
    )
    widths = {
        "hidden_size": hf["hidden_size"],
        "query width": queries / tensor,
        "query, key and value width": (queries + pairs) / tensor,
        "intermediate_size": hf["intermediate_size"] / tensor,
    }
    if number_of_experts(hf):
        widths["moe_intermediate_size"] = hf["moe_intermediate_size"] / expert_tensor
    for key, width in widths.items():
        if width % multiple:
            remedy = (
                f"{config.precision.fp8_recipe.value} needs widths that are multiples of "
                f"{multiple}, and the model's "
                f"{key} is {width:g} on a tensor-parallel rank; lower parallel.tensor or use bf16"
            )
            raise SettingError("precision.train", config.precision.train, remedy)
