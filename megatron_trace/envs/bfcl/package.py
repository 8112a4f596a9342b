"""All that is used of the package bfcl-eval. No other file of ours imports it.

Most of what the package asks for belongs to its model handlers, which are never imported here. What
is imported needs mpmath and nothing else. `bfcl_eval.utils` and `bfcl_eval.constants.eval_config`
must not be imported: they make folders beside the installed package.
"""

import importlib
import importlib.metadata
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

NAME, VERSION = "bfcl-eval", "2026.3.23"

MULTI_TURN = "bfcl_eval.eval_checker.multi_turn_eval"
AST_CHECKER = "bfcl_eval.eval_checker.ast_eval.ast_checker"
MODEL_CONFIG = "bfcl_eval.constants.model_config"

POLICY = "policy"
"""The name by which the checkers know the policy. A `_` in it would be read as `/`."""

_importing = Lock()


class NotInstalled(ImportError):
    """The package bfcl-eval is missing."""


def require() -> None:
    """Check that the package is there.

    Raises:
        NotInstalled: it is not.
    """
    if find_spec("bfcl_eval") is None:
        raise NotInstalled(
            f"function_calling needs {NAME}: pip install --no-deps {NAME}=={VERSION} mpmath"
        )


def version() -> str:
    """The version that is installed.

    Raises:
        NotInstalled: the package is missing.
    """
    require()
    return importlib.metadata.version(NAME)


def data_folder() -> Path:
    """The folder of its data files.

    Raises:
        NotInstalled: the package is missing.
    """
    require()
    return Path(importlib.import_module("bfcl_eval").__file__ or "").parent / "data"


def read_lines(name: str) -> list[Any]:
    """The JSON lines of a data file, such as `BFCL_v4_multiple.json`."""
    text = (data_folder() / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


@cache
def api_classes() -> Mapping[str, str]:
    """Names of the simulated APIs of the multi-turn categories -> the file of their docs."""
    table = _constants("executable_backend_config").MULTI_TURN_FUNC_DOC_FILE_MAPPING
    # The others search the real web, or remember across conversations.
    outside = ("WebSearchAPI", "MemoryAPI_kv", "MemoryAPI_vector", "MemoryAPI_rec_sum")
    return {name: file for name, file in table.items() if name not in outside}


@cache
def docs_of(api: str) -> Sequence[Mapping[str, Any]]:
    """The docs of an API's functions, in BFCL's order. They must not be changed."""
    return read_lines(f"multi_turn_func_doc/{api_classes()[api]}")


def new_api(api: str, config: Mapping[str, Any], long_context: bool) -> Any:
    """A new instance of an API, in the state that `config` describes, which it may change."""
    constants = _constants("executable_backend_config")
    instance = getattr(importlib.import_module(constants.CLASS_FILE_PATH_MAPPING[api]), api)()
    if api not in constants.STATELESS_CLASSES:
        instance._load_scenario(config.get(api, {}), long_context=long_context)
    # What a long context adds are objects of the module, which calls would change for all.
    return deepcopy(instance) if long_context else instance


def with_owners(call: str, owners: Mapping[str, str]) -> str:
    """BFCL's text of a call, with the owner's name before every name that `(` follows.

    It does so within quoted texts too, and takes away the space before their `(`. Both change what
    a call writes, so the scores are BFCL's only if it is done here as well.
    """
    utils = importlib.import_module(f"{MULTI_TURN}.multi_turn_utils")
    return utils._process_method_calls(call, owners)


def multi_turn_checker(execute: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """BFCL's own `multi_turn_checker`, which calls `execute` where it would call its own.

    Its own evaluates the policy's words as Python, and keeps the APIs as globals of a module.
    """
    module = importlib.import_module(f"{MULTI_TURN}.multi_turn_checker")
    names = {**vars(module), "execute_multi_turn_func_call": execute}
    # The function's code with other globals. So no episode sees another's `execute`.
    return FunctionType(module.multi_turn_checker.__code__, names)


@cache
def ast_checker() -> Callable[..., dict[str, Any]]:
    """BFCL's own `ast_checker`, for Python; `POLICY` is a model that gets `_` for `.` in names."""
    with _importing, _without_handlers():
        checker: Any = importlib.import_module(AST_CHECKER)
    # `_without_handlers` changes nothing where somebody has imported the checker before.
    checker.MODEL_CONFIG_MAPPING = {**checker.MODEL_CONFIG_MAPPING, **_models()}
    return checker.ast_checker


def python_language() -> Any:
    """What `ast_checker` calls Python."""
    return _constants("enums").Language.PYTHON


def more_functions_words() -> str:
    """What the user says when a function is added."""
    return _constants("default_prompts").DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_FC


def most_steps() -> int:
    """Steps with calls that a user's turn may have."""
    return _constants("default_prompts").MAXIMUM_STEP_LIMIT


def json_types() -> Mapping[str, str]:
    """BFCL's names of types -> those of JSON schema."""
    return _constants("type_mappings").GORILLA_TO_OPENAPI


def _constants(name: str) -> Any:
    require()
    return importlib.import_module(f"bfcl_eval.constants.{name}")


def _models() -> dict[str, Any]:
    return {POLICY: SimpleNamespace(underscore_to_dot=True)}


@contextmanager
def _without_handlers() -> Iterator[None]:
    """Import the checker without the handlers of all models.

    It looks up one flag of the model in a table, whose module imports the handlers, and they import
    vLLM, cohere, faiss and tree_sitter. For the time of the import that module is one with our
    line alone.
    """
    if MODEL_CONFIG in sys.modules:
        yield
        return
    small = ModuleType(MODEL_CONFIG)
    small.__dict__["MODEL_CONFIG_MAPPING"] = _models()
    sys.modules[MODEL_CONFIG] = small
    try:
        yield
    finally:
        del sys.modules[MODEL_CONFIG]
