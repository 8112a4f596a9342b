"""Which arithmetic the policy trains in, and whether this machine can."""

import importlib.util

import torch

from megatron_trace.config import FP8Recipe, Precision, PrecisionConfig


def has_transformer_engine() -> bool:
    """Whether Transformer Engine can be used: it is installed and there is a CUDA device."""
    return torch.cuda.is_available() and importlib.util.find_spec("transformer_engine") is not None


def check_precision(config: PrecisionConfig) -> None:
    """Refuse, before anything is built, an arithmetic that this machine does not have.

    Raises:
        ValueError: FP8 without a Hopper or newer GPU or without Transformer Engine, or a recipe of a newer GPU.
    """
    if config.train is not Precision.fp8:
        return
    if not torch.cuda.is_available():
        raise ValueError(
            "precision.train=fp8 needs a Hopper or newer GPU, and this machine has no CUDA device"
        )
    capability = torch.cuda.get_device_capability()
    if capability < (9, 0):
        raise ValueError(
            f"precision.train=fp8 needs a Hopper or newer GPU (compute capability 9.0), and this one has "
            f"{capability[0]}.{capability[1]}; use precision.train=bf16"
        )
    if not has_transformer_engine():
        raise ValueError(
            "precision.train=fp8 needs Transformer Engine: pip install transformer-engine[pytorch]"
        )
    if config.fp8_recipe is FP8Recipe.mxfp8 and capability < (10, 0):
        raise ValueError(
            "precision.fp8_recipe=mxfp8 needs a Blackwell or newer GPU (compute capability 10.0)"
        )


def token_multiple(config: PrecisionConfig) -> int:
    """Tokens of a micro-batch must come in multiples of this: Transformer Engine asks it of FP8 matrices."""
    if config.train is not Precision.fp8:
        return 1
    return 32 if config.fp8_recipe is FP8Recipe.mxfp8 else 16


def parameter_dtype(config: PrecisionConfig) -> torch.dtype:
    """Dtype of the policy's parameters; the optimizer keeps float32 copies, and FP8 computes from bfloat16."""
    return torch.float32 if config.train is Precision.float32 else torch.bfloat16
