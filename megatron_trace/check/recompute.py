"""Activation recomputation that Megatron-Core refuses, or that would do nothing."""

from typing import Any

from megatron_trace.config import (
    Config,
    FP8Recipe,
    Precision,
    Recompute,
    SettingError,
    check_bounds,
)
from megatron_trace.models.architecture import number_of_experts, sparse_layers


def check_recompute(config: Config, hf: dict[str, Any]) -> None:
    """Refuse a recomputation that cannot work for the model that `hf` (config.json) describes.

    Raises:
        SettingError: at the first setting that cannot work.
    """
    check_bounds(config.recompute, "recompute.")
    if config.recompute.granularity is Recompute.selective:
        _check_modules(config, hf)
    elif config.recompute.granularity is Recompute.full:
        _check_layers(config, hf)


def _check_modules(config: Config, hf: dict[str, Any]) -> None:
    modules = config.recompute.modules
    if not modules:
        remedy = "selective recomputation needs the name of a module"
        raise SettingError("recompute.modules", modules, remedy)
    delayed = (
        config.precision.train is Precision.fp8 and config.precision.fp8_recipe is FP8Recipe.delayed
    )
    for name in modules:
        if name.startswith("moe") and not number_of_experts(hf):
            raise SettingError("recompute.modules", name, "the model has no experts; leave it out")
        if name == "moe_act" and config.precision.train is Precision.float32:
            remedy = (
                "needs Transformer Engine's grouped experts, which float32 does not use; use moe"
            )
            raise SettingError("recompute.modules", name, remedy)
        if name == "mlp" and all(sparse_layers(hf)):
            raise SettingError(
                "recompute.modules", name, "all layers of the model have experts; use moe"
            )
        if name in ("layernorm", "moe_act") and delayed:
            remedy = (
                "does not go with precision.fp8_recipe=delayed; use another recipe, or leave it out"
            )
            raise SettingError("recompute.modules", name, remedy)


def _check_layers(config: Config, hf: dict[str, Any]) -> None:
    recompute, parallel = config.recompute, config.parallel
    part = hf["num_hidden_layers"] // (parallel.pipeline * parallel.interleave)
    if not 1 <= recompute.layers <= part:
        remedy = f"must be 1 to {part}, the layers of a stage (of each of its parts, interleaved)"
        raise SettingError("recompute.layers", recompute.layers, remedy)
    if recompute.method == "uniform" and part % recompute.layers:
        remedy = (
            f"must divide the {part} layers of a stage into equal chunks, or use "
            "recompute.method=block"
        )
        raise SettingError("recompute.layers", recompute.layers, remedy)
