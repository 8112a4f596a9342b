"""Environments: what an agent acts in. One file each, behind the `Environment` protocol."""

from megatron_trace.envs.environment import Environment, StepResult
from megatron_trace.envs.registry import environment_factory

__all__ = ["Environment", "StepResult", "environment_factory"]
