"""Lets Megatron-Core run on a machine without CUDA: the same code paths over gloo.

Megatron-Core asks for "cuda" by name in factories, random states and type checks. `install()` answers these
with the CPU. It changes torch for the whole process, so only train ranks call it, before `megatron.core` is used.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch

CPU = torch.device("cpu")
FACTORIES = (
    *("tensor", "as_tensor", "zeros", "ones", "empty", "full", "rand", "randn", "randint", "arange"),
    *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"),
)


def install() -> bool:
    """Redirect CUDA requests to the CPU, once. Returns whether the process runs on the CPU."""
    if torch.cuda.is_available():
        return False
    if getattr(torch, "_trace_cpu_adapter", False):
        return True
    warnings.filterwarnings("ignore", message="Transformer Engine and Apex are not installed")
    for name in FACTORIES:
        setattr(torch, name, _on_cpu(getattr(torch, name)))
    _patch_tensors()
    _patch_cuda()
    _patch_random_states()
    torch._trace_cpu_adapter = True  # type: ignore[attr-defined]
    return True


def _is_cuda(device: Any) -> bool:
    return isinstance(device, (str, torch.device)) and str(device).startswith("cuda")


def _on_cpu(factory: Callable) -> Callable:
    @functools.wraps(factory)
    def on_cpu(*args: Any, **kwargs: Any) -> Any:
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = CPU
        return factory(*args, **kwargs)

    return on_cpu


def _patch_tensors() -> None:
    move, kind = torch.Tensor.to, torch.Tensor.type

    def to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = CPU
        return move(self, *(CPU if _is_cuda(argument) else argument for argument in args), **kwargs)

    def type_name(self: torch.Tensor, dtype: Any = None, **kwargs: Any) -> Any:
        # The distributed optimizer sorts parameters by "torch.cuda.FloatTensor" and its siblings.
        if dtype is None:
            return kind(self).replace("torch.", "torch.cuda.", 1)
        return kind(self, dtype, **kwargs)

    torch.Tensor.to = to  # type: ignore[method-assign,assignment]
    torch.Tensor.type = type_name  # type: ignore[method-assign,assignment]
    torch.Tensor.cuda = lambda self, *args, **kwargs: self  # type: ignore[method-assign]
    torch.nn.Module.cuda = lambda self, device=None: self  # type: ignore[method-assign]


def _patch_cuda() -> None:
    torch.cuda.current_device = lambda: CPU  # type: ignore[assignment,return-value]
    torch.cuda.synchronize = lambda device=None: None  # type: ignore[assignment]
    torch.cuda.set_device = lambda device: None  # type: ignore[assignment]
    torch.cuda.manual_seed = torch.manual_seed  # type: ignore[assignment]
    torch.cuda.get_rng_state = lambda device="cuda": torch.get_rng_state()
    torch.cuda.set_rng_state = lambda state, device="cuda": torch.set_rng_state(state)


def _patch_random_states() -> None:
    from megatron.core.tensor_parallel import random

    random._get_cuda_rng_state = lambda *args, **kwargs: torch.get_rng_state()
    random._set_cuda_rng_state = lambda state, *args, **kwargs: torch.set_rng_state(state)
