"""Which arithmetic the policy trains in."""

import torch
from torch import Tensor

from megatron_trace.config import Precision, PrecisionConfig
from megatron_trace.models import transformer_engine


def has_transformer_engine() -> bool:
    """Whether Transformer Engine can be used: it is installed and there is a CUDA device."""
    return torch.cuda.is_available() and transformer_engine.has_transformer_engine()


def uses_transformer_engine(dtype: torch.dtype) -> bool:
    """Whether a model of parameters of `dtype` is made of its layers: its attention over packed rows wants 16 bits."""
    return dtype is not torch.float32 and has_transformer_engine()


def plain(parameter: Tensor) -> Tensor:
    """The values of a parameter as an ordinary tensor: itself, or what an FP8 one stands for."""
    from megatron.core.fp8_utils import is_float8tensor

    detached = parameter.detach()
    return detached.dequantize() if is_float8tensor(parameter) else detached


def fill(parameter: Tensor, values: Tensor) -> None:
    """Give a parameter `values`, and an FP8 one its float32 copy in the optimizer, which is made from what it was
    before it was rounded."""
    with torch.no_grad():
        parameter.copy_(values.to(parameter.device))
    if hasattr(parameter, "get_high_precision_init_val"):  # set by Transformer Engine
        parameter._high_precision_init_val = values.to("cpu", copy=True)


def parameter_dtype(config: PrecisionConfig) -> torch.dtype:
    """Dtype of the policy's parameters; the optimizer keeps float32 copies, and FP8 computes from bfloat16."""
    return torch.float32 if config.train is Precision.float32 else torch.bfloat16
