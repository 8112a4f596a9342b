"""The ground truth of multi-turn tasks, as a policy would say it."""

import ast
from collections.abc import Mapping
from typing import Any

from megatron_trace.envs.bfcl import package
from megatron_trace.envs.bfcl.calls import parsed
from megatron_trace.models.messages import Reply, ToolCall


def truth_calls(task: Mapping[str, Any]) -> list[list[ToolCall]]:
    """The calls of the ground truth, for every turn of the user; all arguments are named."""
    docs = [doc for api in task["involved_classes"] for doc in package.docs_of(api)]
    arguments = {doc["name"]: list(doc["parameters"]["properties"]) for doc in docs}
    return [
        [_call(text, number, arguments) for number, text in enumerate(turn)]
        for turn in task["ground_truth"]
    ]


def truth_replies(task: Mapping[str, Any]) -> list[Reply]:
    """One reply for every call, and one without a call at the end of every turn of the user."""
    replies = []
    for calls in truth_calls(task):
        replies += [Reply("", calls=(call,)) for call in calls]
        replies.append(Reply("Done."))
    return replies


def _call(text: str, number: int, arguments: Mapping[str, list[str]]) -> ToolCall:
    # `parsed` wants an owner, which the ground truth does not name.
    _, name, positional, named = parsed(f"api.{ast.unparse(ast.parse(text, mode='eval'))}")
    given = dict(zip(arguments[name], positional, strict=False)) | named
    return ToolCall(name, given, f"call_{number}")
