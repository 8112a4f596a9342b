"""Which arithmetic the policy trains in."""

import importlib.util

import torch

from megatron_trace.config import Precision, PrecisionConfig


def has_transformer_engine() -> bool:
    """Whether Transformer Engine can be used: it is installed and there is a CUDA device."""
    return torch.cuda.is_available() and importlib.util.find_spec("transformer_engine") is not None


def parameter_dtype(config: PrecisionConfig) -> torch.dtype:
    """Dtype of the policy's parameters; the optimizer keeps float32 copies, and FP8 computes from bfloat16."""
    return torch.float32 if config.train is Precision.float32 else torch.bfloat16
