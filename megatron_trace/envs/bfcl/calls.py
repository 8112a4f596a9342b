"""Calls as BFCL writes them, `cd(folder='x')`, without evaluating what a policy wrote."""

import ast
from collections.abc import Mapping
from typing import Any


def call_text(name: str, arguments: Mapping[str, Any]) -> str:
    """The text of a call (`convert_to_function_call` of BFCL).

    Raises:
        ValueError: the arguments cannot be written.
    """
    try:
        return f"{name}({','.join(f'{key}={value!r}' for key, value in arguments.items())})"
    except RecursionError:
        raise ValueError("its arguments are nested too deeply") from None


def parsed(text: str) -> tuple[str, str, list[Any], dict[str, Any]]:
    """Owner, method, and the positional and named arguments of `owner.method(…)`.

    Raises:
        NameError: it names something else than a method of an owner, in the words of Python.
        SyntaxError: it is no Python.
        ValueError: it is another expression than one call with literal arguments.
    """
    call = ast.parse(text, "<string>", "eval").body
    if not isinstance(call, ast.Call):
        raise ValueError("it is no call of a function")
    function = call.func
    if not isinstance(function, ast.Attribute) or not isinstance(function.value, ast.Name):
        raise _unknown(function)
    if any(isinstance(value, ast.Starred) for value in call.args) or not all(
        word.arg for word in call.keywords
    ):
        raise ValueError("its arguments must be written one by one")
    positional = [_literal(value) for value in call.args]
    named = {str(word.arg): _literal(word.value) for word in call.keywords}
    return function.value.id, function.attr, positional, named


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        # Its own message holds an address, and so differs from one process to another.
        raise _unknown(node) from None


def _unknown(node: ast.expr) -> NameError | ValueError:
    names = (part.id for part in ast.walk(node) if isinstance(part, ast.Name))
    name = next(names, None)
    return NameError(f"name '{name}' is not defined") if name else ValueError("it is no literal")
