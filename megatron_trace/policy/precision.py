"""Dtypes of the policy's parameters, and parameters in FP8."""

import torch
from torch import Tensor

from megatron_trace.config import Precision, PrecisionConfig
from megatron_trace.models import transformer_engine


def has_transformer_engine() -> bool:
    """Whether Transformer Engine can be used: there is a CUDA device, and it can be imported."""
    return torch.cuda.is_available() and not transformer_engine.import_problem()


def uses_transformer_engine(dtype: torch.dtype) -> bool:
    """Whether a model with parameters of `dtype` is built of Transformer Engine's layers.

    Its attention over packed trees needs 16-bit parameters.
    """
    return dtype is not torch.float32 and has_transformer_engine()


def plain(parameter: Tensor) -> Tensor:
    """The values of a parameter as an ordinary tensor; FP8 values are dequantised."""
    from megatron.core.fp8_utils import is_float8tensor

    detached = parameter.detach()
    return detached.dequantize() if is_float8tensor(parameter) else detached


def fill(parameter: Tensor, values: Tensor) -> None:
    """Set a parameter to `values`."""
    with torch.no_grad():
        parameter.copy_(values.to(parameter.device))
    # Transformer Engine sets this on FP8 parameters. The optimizer makes its float32 copy from it,
    # and so from the values before they were rounded to FP8.
    if hasattr(parameter, "get_high_precision_init_val"):
        parameter._high_precision_init_val = values.to("cpu", copy=True)


def parameter_dtype(config: PrecisionConfig) -> torch.dtype:
    """Dtype of the policy's parameters.

    The optimizer keeps float32 copies. FP8 matrices are computed from bfloat16 parameters.
    """
    return torch.float32 if config.train is Precision.float32 else torch.bfloat16
