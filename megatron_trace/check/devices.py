"""What only the machine that trains can say: its GPUs, CUDA and Transformer Engine."""

from megatron_trace.config import (
    Config,
    FP8Recipe,
    Precision,
    Recompute,
    SettingError,
    WeightBackend,
)
from megatron_trace.models.transformer_engine import has_transformer_engine

HOPPER, BLACKWELL, CONSUMER_BLACKWELL = (9, 0), (10, 0), (12, 0)
"""Compute capabilities."""


def check_devices(config: Config) -> None:
    """Refuse what this machine does not have. Imports torch where something needs a GPU.

    Raises:
        SettingError: it is not there.
    """
    fp8, nccl = (
        config.precision.train is Precision.fp8,
        config.rollout.weight_backend is WeightBackend.nccl,
    )
    grouped = (
        config.recompute.granularity is Recompute.selective
        and "moe_act" in config.recompute.modules
    )
    if not (fp8 or nccl or grouped):
        return  # nothing here needs a GPU
    import torch  # takes seconds, so only where it is needed

    cuda = torch.cuda.is_available()
    if fp8:
        _check_fp8(config, cuda)
    if nccl and not cuda:
        remedy = "needs CUDA GPUs, and there are none; use ray"
        raise SettingError("rollout.weight_backend", config.rollout.weight_backend, remedy)
    if grouped and not (cuda and has_transformer_engine()):
        remedy = "needs Transformer Engine's grouped experts; use moe"
        raise SettingError("recompute.modules", "moe_act", remedy)


def _check_fp8(config: Config, cuda: bool) -> None:
    import torch

    train, recipe = config.precision.train, config.precision.fp8_recipe
    if not cuda:
        remedy = "needs a Hopper or newer GPU with CUDA, and there is none; use bf16 or float32"
        raise SettingError("precision.train", train, remedy)
    capability, name = torch.cuda.get_device_capability(), torch.cuda.get_device_name()
    if capability < HOPPER:
        raise SettingError(
            "precision.train", train, f"needs a Hopper or newer GPU, not {name}; use bf16"
        )
    if not has_transformer_engine():
        remedy = "needs Transformer Engine: pip install 'transformer-engine[pytorch]', or use bf16"
        raise SettingError("precision.train", train, remedy)
    if recipe is FP8Recipe.mxfp8 and not BLACKWELL <= capability < CONSUMER_BLACKWELL:
        remedy = (
            f"needs a Blackwell data-centre GPU (compute capability 10), not {name}; use blockwise"
        )
        raise SettingError("precision.fp8_recipe", recipe, remedy)
    if recipe is FP8Recipe.blockwise and _cuda_version() < (12, 9):
        remedy = f"needs PyTorch for CUDA 12.9 or newer, not {torch.version.cuda}; use tensorwise"
        raise SettingError("precision.fp8_recipe", recipe, remedy)


def _cuda_version() -> tuple[int, ...]:
    import torch

    return tuple(int(part) for part in (torch.version.cuda or "0").split("."))
