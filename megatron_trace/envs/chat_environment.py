"""`ChatEnvironment`: the policy speaks in messages, and calls tools as its model's family does."""

from megatron_trace.envs.environment import Environment, StepResult
from megatron_trace.models.messages import Reply


class ChatEnvironment(Environment):
    """One episode of a chat. A turn ends where the model's family ends a message.

    `reset` returns the first messages. After it, `tools` holds the JSON schemas of what the policy
    may call. `step` takes a `Reply` and observes messages, such as `{"role": "tool", "content": …}`
    for every call, in their order.

    Most environments are easier to write as a `ToolEnvironment`.
    """

    stop = ()
    chat = True

    def step(self, action: Reply) -> StepResult:
        """Take one turn of the policy."""
        raise NotImplementedError
