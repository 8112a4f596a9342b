"""The exact model of any train rank of any cluster, in one process: real Megatron modules without
memory.

The process group is torch's fake one, in which a process may claim any rank of any world. The
tensors are fake too: they have a shape and a dtype, but no memory. Megatron's data-parallel buffers
and distributed optimizer are built over them, so their padding and sharding are counted as they
are.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import distributed, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore

from megatron_trace.config import Config, Recompute
from megatron_trace.plan.model_state import ModelState
from megatron_trace.policy.distributed import ParallelState, start, stop


def built_stages(hf: dict[str, Any], config: Config, world: int) -> list[ModelState]:
    """What the first rank of every pipeline stage of `world` train ranks holds.

    FP8 weights are counted as the bf16 ones that Megatron's modules have without Transformer
    Engine; see `model_state.fp8_change`.

    Raises:
        ValueError: the process is a train rank already.
    """
    stages = config.parallel.pipeline
    return [built(hf, config, world, rank=stage * (world // stages)) for stage in range(stages)]


def built(hf: dict[str, Any], config: Config, world: int, *, rank: int) -> ModelState:
    """What train rank `rank` of `world` holds of the model that `hf` (config.json) describes."""
    # Recomputation changes no parameter, and Megatron refuses some kinds of it without Transformer
    # Engine.
    config = replace(config, recompute=replace(config.recompute, granularity=Recompute.none))
    with _pretended(config, world, rank) as parallel:
        from megatron_trace.policy import model, optimizer

        with FakeTensorMode(allow_non_fake_inputs=True), patch.object(nn.Module, "to", _cast):
            chunks = [
                model.make_model(hf, config, parallel, number) for number in range(parallel.chunks)
            ]
            wrapped = optimizer.wrap(chunks, config)
            return state_of(wrapped, optimizer.Optimizer(wrapped, config.learning))


def state_of(wrapped: list[Any], optimizer: Any) -> ModelState:
    """Bytes of a rank's wrapped model, gradients and optimizer."""
    buffers = [buffer for part in wrapped for buffer in part.buffers + part.expert_parallel_buffers]
    # Adam makes its moments in the first step, so they are counted from the parameters that it
    # owns.
    moments = copies = 0
    for part in optimizer.megatron.chained_optimizers:
        if part.is_stub_optimizer:
            continue
        for group in part.param_groups:
            moments += sum(8 * parameter.numel() for parameter in group["params"])
        for parameters in part.shard_fp32_from_float16_groups:
            copies += sum(4 * parameter.numel() for parameter in parameters)
    # The predictor is not in Megatron's buffers: it stays float32, and every rank of the last stage
    # holds it whole.
    predictor = 0
    for part in wrapped:
        for name, parameter in part.module.named_parameters():
            if name.startswith("predictor."):
                predictor += parameter.nbytes
    learner = optimizer.predictor.nbytes if optimizer.predictor else 0
    return ModelState(
        weights=sum(buffer.param_data.nbytes for buffer in buffers) + predictor,
        gradients=sum(buffer.grad_data.nbytes for buffer in buffers),
        optimizer=learner + moments + copies,
    )


@contextmanager
def _pretended(config: Config, world: int, rank: int) -> Iterator[ParallelState]:
    """Claim to be train rank `rank` of `world`; nothing is sent anywhere."""
    if distributed.is_initialized():
        raise ValueError("this process is a train rank; a plan needs its own process")
    distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)
    environment = {"RANK": str(rank), "WORLD_SIZE": str(world)}
    with ExitStack() as stack:
        stack.callback(stop)
        stack.enter_context(patch.dict(os.environ, environment))
        stack.enter_context(
            patch.object(distributed, "new_group", _fake_group(distributed.new_group))
        )
        stack.enter_context(patch.object(distributed, "all_gather_object", _own_for_all))
        parallel = start(config.parallel, config.run.seed)
        # Transformer Engine's modules have the same parameters, but cannot be built over fake
        # tensors.
        stack.enter_context(
            patch("megatron_trace.policy.precision.has_transformer_engine", lambda: False)
        )
        yield parallel


def _fake_group(new_group: Any) -> Any:
    """`new_group` that makes fake groups whatever backend it is asked for."""

    def fake(ranks: Any = None, *_: Any, **__: Any) -> Any:
        return new_group(ranks, backend="fake")

    return fake


def _own_for_all(everyone: list[Any], own: Any, group: Any = None) -> None:
    """`all_gather_object` where every rank gathers what this one has."""
    everyone[:] = [own] * len(everyone)


def _cast(
    module: nn.Module, device: Any = None, dtype: torch.dtype | None = None, **_: Any
) -> nn.Module:
    """`Module.to` for fake parameters: it changes the dtype alone, since torch cannot move them."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and dtype is not None and parameter.dtype is not dtype:
                cast = nn.Parameter(parameter.data.to(dtype))
                cast.__dict__.update(parameter.__dict__)
                part._parameters[name] = cast
    return module
