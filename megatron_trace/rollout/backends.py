"""Which engine samples and how weights reach it; the one file outside `vllm/` that names vLLM."""

from functools import partial

import torch

from megatron_trace.config import Config, WeightBackend
from megatron_trace.rollout.broadcast import BroadcastSync
from megatron_trace.rollout.engine import EngineStarter
from megatron_trace.rollout.object_store import ObjectStoreSync
from megatron_trace.rollout.vllm.engine import VLLMEngine
from megatron_trace.rollout.weight_sync import WeightSync

start_engine: EngineStarter = VLLMEngine.start
"""What starts a worker's engine."""


def make_weight_sync(config: Config) -> WeightSync:
    """The way of the weights that `rollout.weight_backend` names."""
    if config.rollout.weight_backend is WeightBackend.nccl:
        # It imports vLLM, which the trainer's process needs for NCCL alone.
        from megatron_trace.rollout.vllm.nccl import NCCLSender

        return BroadcastSync(partial(NCCLSender, config.rollout.tensor_parallel))
    return ObjectStoreSync(getattr(torch, config.precision.rollout))
