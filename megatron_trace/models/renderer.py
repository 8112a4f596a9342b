"""Chat messages to token ids and back, by the rules of the model's family.

A conversation only grows. The prompt is rendered once; then come, in turn, what was sampled and the
new messages' tokens. What was sampled is never rendered again: the trainer must see the very tokens
that the sampler chose.

The rules of a family (how a message begins and ends, how a tool call is written) come from the
package `renderers`. A family that it does not know is rendered by the model's own chat template.
"""

from collections.abc import Sequence
from typing import Protocol

from megatron_trace.models.chat import TextCodec
from megatron_trace.models.messages import Message, Reply, Tool
from megatron_trace.models.renderer_of_family import FamilyRenderer, family_renderers
from megatron_trace.models.renderer_of_template import TemplateRenderer

AUTO, TEMPLATE = "auto", "template"
"""Values of `environment.renderer` that are no family's name."""

BEFORE: tuple[Message, ...] = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 2 + 3?"},
)
AFTER: tuple[Message, ...] = (
    {"role": "tool", "content": "5", "name": "add", "tool_call_id": "call_0"},
    {"role": "user", "content": "Go on."},
)
"""Messages before and after a turn, on which a family's rules are compared with the template."""

TOOL: Tool = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


class Renderer(Protocol):
    """How a model writes a conversation. Its methods may be called from several threads.

    Attributes:
        name: of the family, or `template`.
        stop_ids: tokens that end a turn of the policy.
    """

    name: str
    stop_ids: list[int]

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        """Token ids of the first messages, up to where the policy begins to speak.

        Args:
            tools: what the policy may call.
        """
        ...

    def reply(self, prompt_ids: list[int], sampled_ids: list[int]) -> Reply:
        """What the sampled token ids say."""
        ...

    def next_ids(
        self, prompt_ids: list[int], sampled_ids: list[int], messages: Sequence[Message]
    ) -> list[int] | None:
        """Token ids that follow the sampled ones: the new messages, up to the policy's next turn.

        Args:
            prompt_ids: everything before the sampled tokens.

        Returns:
            None if nothing can follow, as after a thought without an end.
        """
        ...


def make_renderer(codec: TextCodec, name: str = AUTO) -> Renderer:
    """The renderer of a model.

    Args:
        name: a family of the package `renderers`; "template" for the model's own template; "auto"
            for the first family that writes what the model's template writes, else the template.

    Raises:
        ValueError: the model cannot be rendered as `name` says; says why.
    """
    if name not in (AUTO, TEMPLATE):
        return FamilyRenderer(name, codec)
    template = TemplateRenderer(codec)
    if name == TEMPLATE:
        return template
    alike = (family for family in family_renderers(codec) if _write_the_same(family, template))
    return next(alike, template)


def _write_the_same(family: FamilyRenderer, template: TemplateRenderer) -> bool:
    """Whether a family's rules give the token ids of the model's own chat template."""
    tools = [TOOL] if template.reads_tools else []
    prompt = template.prompt_ids(BEFORE, tools)
    said = [*prompt[-1:], *template.stop_ids]
    try:
        return family.prompt_ids(BEFORE, tools) == prompt and family.next_ids(
            prompt, said, AFTER
        ) == template.next_ids(prompt, said, AFTER)
    # What a template raises at messages that are not meant for it is its own.
    except Exception:
        return False
