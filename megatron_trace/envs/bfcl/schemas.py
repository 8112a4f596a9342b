"""JSON schemas of BFCL's functions, as its handler for OpenAI's chat format makes them."""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from megatron_trace.envs.bfcl import package
from megatron_trace.models.messages import Tool

HINT = " Note that the provided function is in Python 3 syntax."
"""What BFCL adds to every description (`_func_doc_language_specific_pre_processing`)."""


def tool_name(name: str) -> str:
    """The name by which the policy calls a function: chat formats allow no dot."""
    return re.sub(r"\.", "_", name)


def tools_of(docs: Sequence[Mapping[str, Any]]) -> list[Tool]:
    """Schemas of functions (`convert_to_tool` for `OPENAI_COMPLETIONS`).

    Raises:
        ValueError: a doc is none.
    """
    return [_tool(doc) for doc in docs]


def _tool(doc: Mapping[str, Any]) -> Tool:
    try:
        function: dict[str, Any] = deepcopy(dict(doc))
        function["name"] = tool_name(function["name"])
        function["description"] += HINT
        parameters = function["parameters"]
        parameters["type"] = "object"
        parameters["properties"] = _cast(parameters["properties"])
    except (KeyError, TypeError, AttributeError) as error:
        text = f"{type(error).__name__}: {error}"
        raise ValueError(f"a function's doc is none that BFCL can read: {text}") from None
    for name, schema in parameters["properties"].items():
        # Eight arguments of the data have none. A chat template may ask for it.
        schema.setdefault("description", name)
    return {"type": "function", "function": function}


def _cast(properties: dict[str, Any]) -> dict[str, Any]:
    """`_cast_to_openai_type`: it goes as deep as BFCL does, and no deeper."""
    types = package.json_types()
    for schema in properties.values():
        kind = schema.get("type")
        if kind == "float":
            schema["format"] = "float"
            schema["description"] += " This is a float type value."
        schema["type"] = types.get(kind, "string")
        if schema["type"] not in ("array", "object"):
            continue
        if "properties" in schema:
            _cast(schema["properties"])
        elif "items" in schema:
            items = schema["items"]
            items["type"] = types[items["type"]]
            if items["type"] == "array" and "items" in items:
                items["items"]["type"] = types[items["items"]["type"]]
            elif items["type"] == "object" and "properties" in items:
                _cast(items["properties"])
    return properties
