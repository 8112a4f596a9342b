"""Which engine samples and how weights reach it; the one file outside `vllm/` that names vLLM."""

from collections.abc import Sequence
from functools import partial

import torch
from ray.actor import ActorHandle

from megatron_trace.config import Config, WeightBackend
from megatron_trace.rollout.broadcast import BroadcastSync, Sender
from megatron_trace.rollout.engine import EngineStarter
from megatron_trace.rollout.object_store import ObjectStoreSync
from megatron_trace.rollout.vllm.engine import VLLMEngine
from megatron_trace.rollout.weight_sync import PolicyWeights, WeightSync

start_engine: EngineStarter = VLLMEngine.start
"""What starts a worker's engine."""


def make_weight_sync(config: Config) -> WeightSync:
    """The way of the weights that `rollout.weight_backend` names."""
    if config.rollout.weight_backend is WeightBackend.nccl:
        return BroadcastSync(partial(_join_by_nccl, config.rollout.tensor_parallel))
    return ObjectStoreSync(getattr(torch, config.precision.rollout))


def _join_by_nccl(
    tensor_parallel: int, workers: Sequence[ActorHandle], weights: PolicyWeights
) -> Sender:
    # vLLM takes seconds to import, and the trainer's process needs it for NCCL alone. The first
    # weights are sent when the workers have started, which is late enough.
    from megatron_trace.rollout.vllm.nccl import NCCLSender

    return NCCLSender(tensor_parallel, workers, weights)
