"""The JSON schema of a Python function, and whether a call's arguments keep it."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from megatron_trace.models.messages import Tool


def schema_of(function: Callable[..., Any]) -> Tool:
    """The schema of a tool: from type hints, and from a docstring with a section `Args:`.

    Args:
        function: a method; its first argument, `self`, is left out.

    Raises:
        ValueError: no docstring, or an argument without type hint or description.
    """
    # It takes seconds to import, and only environments with tools need it.
    from transformers.utils import get_json_schema
    from transformers.utils.chat_template_utils import (
        DocstringParsingException,
        TypeHintParsingException,
    )

    # As a bound method it has no `self`.
    bound = function.__get__(object())
    try:
        schema = get_json_schema(bound)
    except (DocstringParsingException, TypeHintParsingException, ValueError) as error:
        name = getattr(function, "__qualname__", str(function))
        raise ValueError(f"the tool {name} has no schema: {' '.join(str(error).split())}") from None
    schema["function"].pop("return", None)
    return schema


def arguments_fault(arguments: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    """Why the arguments of a call do not keep the tool's schema, or "".

    Args:
        parameters: `parameters` of the tool's schema.
    """
    from jsonschema import Draft202012Validator

    known = parameters.get("properties", {})
    if unknown := [name for name in arguments if name not in known]:
        return f"it has no argument {unknown[0]}; there are {', '.join(known) or 'none'}"
    for error in Draft202012Validator(parameters).iter_errors(dict(arguments)):
        where = "".join(f"{part}: " for part in error.absolute_path)
        # The message quotes the whole value.
        text = error.message if len(error.message) <= 200 else f"{error.message[:200]}…"
        return where + text
    return ""


def as_text(value: Any) -> str:
    """What a tool returned, as the policy reads it: a text as it is, all else as JSON."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)
