"""The process group of the train ranks, and where each rank stands in the parallel layout."""

import os
import socket
import warnings
from collections.abc import MutableMapping
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

from megatron_trace.config import ParallelConfig
from megatron_trace.policy import cpu_adapter

COLLECTIVE_TIMEOUT = timedelta(hours=1)
"""How long a rank waits for the others in a collective call. Ranks that have written their part of
a checkpoint, or read their weights, wait in one for the slowest file system; NCCL's 10 minutes are
too short for that. A run that hangs is ended earlier, by `stop.hang_s`."""


LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class ParallelState:
    """This train rank's coordinates in the parallel layout, from Megatron's `parallel_state`.

    Attributes:
        device: device of the rank's tensors.
        tensor, pipeline, context, data, expert: the rank in each kind of parallelism; `*_size` is
            the number of ranks. Expert parallelism divides the experts among data- and
            context-parallel ranks.
        expert_tensor, expert_tensor_size: the rank within the tensor parallelism of one expert.
        chunks: parts of the model on each pipeline stage (virtual pipeline stages).
    """

    device: torch.device
    tensor: int
    tensor_size: int
    pipeline: int
    pipeline_size: int
    chunks: int
    context: int
    data: int
    data_size: int
    expert: int
    expert_size: int
    expert_tensor: int
    expert_tensor_size: int

    @property
    def last_stage(self) -> bool:
        """Whether this rank holds the output layer and the predictor."""
        return self.pipeline == self.pipeline_size - 1

    @property
    def is_output_rank(self) -> bool:
        """Whether this rank reports results.

        All tensor- and context-parallel ranks of the last stage compute the same scores. Exactly
        one of them reports, or sums over ranks would count the scores several times.
        """
        return self.last_stage and self.tensor == 0 and self.context == 0


def start(config: ParallelConfig, seed: int) -> ParallelState:
    """Join the train ranks of this run (torchrun's, or a single process) and lay them out."""
    device = join()
    return _lay_out(config, seed, device)


def join() -> torch.device:
    """Join the train ranks, if that is not done yet; returns the device of this rank's tensors."""
    on_cpu = cpu_adapter.install()
    _hush()
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if not on_cpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if not distributed.is_initialized():
        backend = "gloo" if on_cpu else "nccl"
        stay_on_this_machine(os.environ)
        # A single rank has nobody to find, so it needs no store that listens.
        if world > 1:
            distributed.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)
        else:
            distributed.init_process_group(
                backend,
                timeout=COLLECTIVE_TIMEOUT,
                store=distributed.HashStore(),
                rank=rank,
                world_size=world,
            )
    return torch.device("cpu") if on_cpu else torch.device("cuda", torch.cuda.current_device())


def stay_on_this_machine(environment: MutableMapping[str, str]) -> None:
    """Let the ranks of one machine meet over its loopback interface.

    torchrun gives them this machine's name, which may not resolve: they would look for it for
    minutes. gloo would listen on the network.
    """
    world = environment.get("WORLD_SIZE", "1")
    if environment.get("LOCAL_WORLD_SIZE", world) != world:
        return
    environment["MASTER_ADDR"] = LOOPBACK
    if "lo" in (name for _, name in socket.if_nameindex()):
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")


def _lay_out(config: ParallelConfig, seed: int, device: torch.device) -> ParallelState:
    from megatron.core import parallel_state, tensor_parallel

    # One process may build several policies one after the other, each in its own layout.
    if parallel_state.model_parallel_is_initialized():
        parallel_state.destroy_model_parallel()
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=config.tensor,
        pipeline_model_parallel_size=config.pipeline,
        virtual_pipeline_model_parallel_size=config.interleave if config.interleave > 1 else None,
        context_parallel_size=config.context,
        expert_model_parallel_size=config.expert,
        expert_tensor_parallel_size=config.expert_tensor,
        distributed_timeout_minutes=COLLECTIVE_TIMEOUT // timedelta(minutes=1),
    )
    tensor_parallel.model_parallel_cuda_manual_seed(seed)
    return ParallelState(
        device=device,
        tensor=parallel_state.get_tensor_model_parallel_rank(),
        tensor_size=parallel_state.get_tensor_model_parallel_world_size(),
        pipeline=parallel_state.get_pipeline_model_parallel_rank(),
        pipeline_size=parallel_state.get_pipeline_model_parallel_world_size(),
        chunks=config.interleave,
        context=parallel_state.get_context_parallel_rank(),
        data=parallel_state.get_data_parallel_rank(),
        data_size=parallel_state.get_data_parallel_world_size(),
        expert=parallel_state.get_expert_model_parallel_rank(),
        expert_size=parallel_state.get_expert_model_parallel_world_size(),
        expert_tensor=parallel_state.get_expert_tensor_parallel_rank(),
        expert_tensor_size=parallel_state.get_expert_tensor_parallel_world_size(),
    )


def _hush() -> None:
    """Silence warnings that Megatron-Core causes on every rank and that no user can act on."""
    warnings.filterwarnings(
        "ignore", message=r"The \.grad attribute of a Tensor that is not a leaf"
    )
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"megatron\.core\.")


def stop() -> None:
    """Leave the process group."""
    from megatron.core import parallel_state

    parallel_state.destroy_model_parallel()
    if distributed.is_initialized():
        distributed.destroy_process_group()
