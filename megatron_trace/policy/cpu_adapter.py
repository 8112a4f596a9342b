"""Lets Megatron-Core run on a machine without CUDA: the same code paths over gloo.

Megatron-Core asks for "cuda" by name in factories, random states and type checks. `install()`
answers these with the CPU. It changes torch for the whole process, so only train ranks call it,
before `megatron.core` is used.
"""

import contextlib
import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch

CPU = torch.device("cpu")
FACTORIES = (
    *(
        "tensor",
        "as_tensor",
        "zeros",
        "ones",
        "empty",
        "full",
        "rand",
        "randn",
        "randint",
        "arange",
    ),
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
    _patch_token_dispatcher()
    _patch_unequal_slices()
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


class _Stream:
    """A CUDA stream, and an event on it, for a CPU: all work on it is done at once."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def wait_stream(self, stream: Any) -> None: ...

    def synchronize(self) -> None: ...

    def record_event(self, event: Any = None) -> "_Stream":
        return self


def _patch_token_dispatcher() -> None:
    """Megatron's dispatcher of tokens to experts copies counts on a separate CUDA stream."""
    from megatron.core.transformer.moe import token_dispatcher

    torch.cuda.Stream = _Stream  # type: ignore[misc,assignment]
    torch.cuda.current_stream = lambda device=None: _Stream()  # type: ignore[assignment,return-value]
    torch.cuda.stream = lambda stream: contextlib.nullcontext()  # type: ignore[assignment,return-value,misc]
    move = token_dispatcher.maybe_move_tensor_to_cpu

    def to_host(tensor: Any, as_numpy: bool = False, record_stream: bool = False) -> Any:
        # Megatron converts what it moves; here nothing has to move, and collectives take no tensors
        # as sizes.
        return tensor.numpy() if as_numpy and torch.is_tensor(tensor) else move(tensor, as_numpy)

    token_dispatcher.maybe_move_tensor_to_cpu = to_host


def _patch_unequal_slices() -> None:
    """Exchange slices of unequal length through sums.

    Tensor-parallel ranks exchange such slices for their experts, which gloo's gather refuses.
    Adding up tensors that are 0 outside the own slice gives the same.
    """
    from megatron.core.tensor_parallel import mappings

    gather, scatter = mappings._gather_along_first_dim, mappings._reduce_scatter_along_first_dim

    def gather_slices(own: torch.Tensor, group: Any, sizes: Any = None, *rest: Any) -> torch.Tensor:
        if sizes is None or group.size() == 1:
            return gather(own, group, sizes, *rest)
        whole = own.new_zeros(sum(sizes), *own.shape[1:])
        whole.split(sizes)[group.rank()].copy_(own)
        torch.distributed.all_reduce(whole, group=group)
        return whole

    def scatter_slices(
        whole: torch.Tensor, group: Any, sizes: Any = None, *rest: Any
    ) -> torch.Tensor:
        if sizes is None or group.size() == 1:
            return scatter(whole, group, sizes, *rest)
        total = whole.clone()
        torch.distributed.all_reduce(total, group=group)
        return total.split(sizes)[group.rank()].clone()

    mappings._gather_along_first_dim = gather_slices
    mappings._reduce_scatter_along_first_dim = scatter_slices


def _patch_random_states() -> None:
    from megatron.core.tensor_parallel import random

    random._get_cuda_rng_state = lambda *args, **kwargs: torch.get_rng_state()
    random._set_cuda_rng_state = lambda state, *args, **kwargs: torch.set_rng_state(state)
