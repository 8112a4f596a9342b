"""bfcl-eval's own way of making and judging calls, beside which ours is put.

Of modules that import what is not installed, such as tree_sitter, single functions are taken by
their source.
"""

import ast
import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bfcl_eval
from bfcl_eval.constants.enums import Language, ModelStyle
from bfcl_eval.constants.type_mappings import GORILLA_TO_OPENAPI
from bfcl_eval.eval_checker.multi_turn_eval import multi_turn_checker, multi_turn_utils

ROOT = Path(bfcl_eval.__file__).parent


def from_source(file: str, *names: str, **given: Any) -> Any:
    """Functions of a file of the package, without its imports."""
    tree = ast.parse((ROOT / file).read_text())
    chosen = [node for node in tree.body if getattr(node, "name", None) in names]
    known = {"copy": copy, "json": json, "re": re, "Any": Any, "Union": Any, "Path": Path, **given}
    exec(compile(ast.Module(chosen, []), file, "exec"), known)
    return [known[name] for name in names]


*_, convert_to_tool, convert_to_function_call = from_source(
    "model_handler/utils.py",
    "_cast_to_openai_type",
    "convert_to_tool",
    "convert_to_function_call",
    GORILLA_TO_OPENAPI=GORILLA_TO_OPENAPI,
    ModelStyle=ModelStyle,
)
*_, ast_checker = from_source(
    "eval_checker/ast_eval/ast_checker.py",
    "convert_func_name",
    "find_description",
    "get_possible_answer_type",
    "type_checker",
    "standardize_string",
    "string_checker",
    "list_checker",
    "dict_checker",
    "list_dict_checker",
    "simple_function_checker",
    "parallel_function_checker_no_order",
    "multiple_function_checker",
    "ast_checker",
    Language=Language,
    PYTHON_TYPE_MAPPING={
        "string": str, "integer": int, "float": float, "boolean": bool, "array": list,
        "tuple": list, "dict": dict, "any": str,
    },
    PYTHON_NESTED_TYPE_CHECK_LIST=["array", "tuple"],
    MODEL_CONFIG_MAPPING={"a/model": type("Config", (), {"underscore_to_dot": True})},
)  # fmt: skip


def accepts_turns(task: dict[str, Any], turns: Sequence[Sequence[Sequence[dict]]]) -> bool:
    """The verdict of `_evaluate_single_multi_turn_entry` on calls `{name: arguments}`."""
    if len(turns) != len(task["ground_truth"]) or any(len(turn) > 20 for turn in turns[:-1]):
        return False
    # Inference ends at the 21st step of a turn.
    turns = [*turns[:-1], turns[-1][:21]]
    entry = task | {"initial_config": json.loads(task["initial_config"])}
    decoded = [[convert_to_function_call(step) for step in turn if step] for turn in turns]
    try:
        found = multi_turn_checker.multi_turn_checker(
            decoded, task["ground_truth"], entry, task["category"], "a_model"
        )
    finally:
        for name in [name for name in vars(multi_turn_utils) if name.endswith("_instance")]:
            delattr(multi_turn_utils, name)
    return found["valid"]


def accepts_calls(task: dict[str, Any], calls: Sequence[dict]) -> bool:
    """The verdict of `_evaluate_single_ast_entry` on calls `{name: arguments}`."""
    return ast_checker(
        json.loads(task["function"]), list(calls), task["ground_truth"], Language.PYTHON, task["category"],
        "a/model",
    )["valid"]  # fmt: skip


def schemas(docs: list[dict]) -> list[dict]:
    """The tools that OpenAI's handler gives its model."""
    return convert_to_tool(docs, GORILLA_TO_OPENAPI, ModelStyle.OPENAI_COMPLETIONS)
