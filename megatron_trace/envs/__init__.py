"""Environments: what an agent acts in. Each is one file that defines an `Environment`."""

from megatron_trace.envs.chat_environment import ChatEnvironment
from megatron_trace.envs.environment import Environment, StepResult
from megatron_trace.envs.registry import ENVIRONMENTS, make_environments
from megatron_trace.envs.tool_environment import ToolEnvironment, tool
from megatron_trace.models.messages import Reply, ToolCall

__all__ = [
    "ENVIRONMENTS",
    "ChatEnvironment",
    "Environment",
    "Reply",
    "StepResult",
    "ToolCall",
    "ToolEnvironment",
    "make_environments",
    "tool",
]
