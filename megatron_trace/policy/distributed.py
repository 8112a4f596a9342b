"""The process group of the train ranks and each rank's place in it."""

import os
import warnings
from dataclasses import dataclass

import torch
from torch import distributed

from megatron_trace.config import ParallelConfig
from megatron_trace.policy import cpu_adapter


@dataclass(frozen=True)
class Place:
    """Where this train rank stands.

    Attributes:
        device: where its tensors live.
        tensor, pipeline, context, data, expert: its rank in each kind of parallelism, and `*_size` the number of such
            ranks. Expert-parallel ranks are data- and context-parallel ranks that share the experts among them.
        expert_tensor, expert_tensor_size: this rank among those over which an expert is split, and their number.
        chunks: parts of the model on each pipeline stage.
    """

    device: torch.device
    tensor: int
    tensor_size: int
    pipeline: int
    pipeline_size: int
    chunks: int
    context: int
    context_size: int
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
    def speaks(self) -> bool:
        """Whether this rank reports results: one of the tensor- and context-parallel ranks of the last stage."""
        return self.last_stage and self.tensor == 0 and self.context == 0


def start(config: ParallelConfig, seed: int) -> Place:
    """Join the train ranks of this run (torchrun's environment, or a single process) and lay them out."""
    on_cpu = cpu_adapter.install()
    _hush()
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if not on_cpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if not distributed.is_initialized():
        backend = "gloo" if on_cpu else "nccl"
        if "RANK" in os.environ:
            distributed.init_process_group(backend)
        else:
            distributed.init_process_group(
                backend, store=distributed.HashStore(), rank=rank, world_size=world
            )
    return _lay_out(
        config,
        seed,
        torch.device("cpu") if on_cpu else torch.device("cuda", torch.cuda.current_device()),
    )


def _lay_out(config: ParallelConfig, seed: int, device: torch.device) -> Place:
    from megatron.core import parallel_state, tensor_parallel

    if parallel_state.model_parallel_is_initialized():
        parallel_state.destroy_model_parallel()
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=config.tensor,
        pipeline_model_parallel_size=config.pipeline,
        virtual_pipeline_model_parallel_size=config.interleave if config.interleave > 1 else None,
        context_parallel_size=config.context,
        expert_model_parallel_size=config.expert,
        expert_tensor_parallel_size=config.expert_tensor,
    )
    tensor_parallel.model_parallel_cuda_manual_seed(seed)
    return Place(
        device=device,
        tensor=parallel_state.get_tensor_model_parallel_rank(),
        tensor_size=parallel_state.get_tensor_model_parallel_world_size(),
        pipeline=parallel_state.get_pipeline_model_parallel_rank(),
        pipeline_size=parallel_state.get_pipeline_model_parallel_world_size(),
        chunks=config.interleave,
        context=parallel_state.get_context_parallel_rank(),
        context_size=parallel_state.get_context_parallel_world_size(),
        data=parallel_state.get_data_parallel_rank(),
        data_size=parallel_state.get_data_parallel_world_size(),
        expert=parallel_state.get_expert_model_parallel_rank(),
        expert_size=parallel_state.get_expert_model_parallel_world_size(),
        expert_tensor=parallel_state.get_expert_tensor_parallel_rank(),
        expert_tensor_size=parallel_state.get_expert_tensor_parallel_world_size(),
    )


def _hush() -> None:
    """Silence what Megatron-Core makes torch repeat on every rank and nobody can act on."""
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
