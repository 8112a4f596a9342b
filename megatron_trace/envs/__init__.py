"""Environments: what an agent acts in. Each is one file that defines an `Environment`."""

from megatron_trace.envs.environment import Environment, StepResult
from megatron_trace.envs.registry import ENVIRONMENTS, make_environments

__all__ = ["ENVIRONMENTS", "Environment", "StepResult", "make_environments"]
