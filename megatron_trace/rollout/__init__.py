"""Rollouts: Ray actors with vLLM engines that sample turns and predict success."""

from megatron_trace.rollout.fleet import Fleet
from megatron_trace.rollout.types import RolloutRequest, SampledRollout

__all__ = ["Fleet", "RolloutRequest", "SampledRollout"]
