"""BFCL's tasks: read from the package's data, and checked."""

import json
from collections.abc import Mapping
from typing import Any

from megatron_trace.envs.bfcl import package
from megatron_trace.envs.bfcl.schemas import tools_of

MULTI_TURN = (
    "multi_turn_base", "multi_turn_miss_func", "multi_turn_miss_param", "multi_turn_long_context",
)  # fmt: skip
SINGLE_TURN = (
    "simple_python", "multiple", "parallel", "parallel_multiple", "irrelevance",
    "live_simple", "live_multiple", "live_parallel", "live_parallel_multiple",
    "live_irrelevance", "live_relevance",
)  # fmt: skip
CATEGORIES = (*MULTI_TURN, *SINGLE_TURN)

KEPT = ("id", "question", "involved_classes", "missed_function")
"""What is kept of BFCL's entries as it is."""

AS_TEXT = ("function", "initial_config")
"""What is kept as JSON text. The policy sees the order of keys, which shards and snapshots sort."""


def read_category(category: str) -> list[dict[str, Any]]:
    """The tasks of a category, in BFCL's order.

    Raises:
        NotInstalled: the package is missing.
    """
    entries = package.read_lines(f"BFCL_v4_{category}.json")
    tasks = [_task(entry, category) for entry in entries]
    if "relevance" not in category:
        answers = package.read_lines(f"possible_answer/BFCL_v4_{category}.json")
        for task, answer in zip(tasks, answers, strict=True):
            assert task["id"] == answer["id"], f"{task['id']}: its answer is {answer['id']}'s"
            task["ground_truth"] = answer["ground_truth"]
    return tasks


def _task(entry: Mapping[str, Any], category: str) -> dict[str, Any]:
    texts = {key: json.dumps(entry[key], ensure_ascii=False) for key in AS_TEXT if key in entry}
    return {"category": category, **{key: entry[key] for key in KEPT if key in entry}, **texts}


def is_multi_turn(task: Mapping[str, Any]) -> bool:
    """Whether a task's category is a multi-turn one."""
    return task["category"] in MULTI_TURN


def docs_at_first(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Docs of the functions that the prompt tells of: all but those that are added later.

    Raises:
        ValueError: `function` is no JSON list.
    """
    if not is_multi_turn(task):
        return _parsed(task, "function", list)
    later = {name for names in task.get("missed_function", {}).values() for name in names}
    return [doc for doc in _all_docs(task) if doc["name"] not in later]


def initial_config(task: Mapping[str, Any]) -> Mapping[str, Any]:
    """Name of an API -> the state in which it begins.

    Raises:
        ValueError: `initial_config` is no JSON object.
    """
    return _parsed(task, "initial_config", dict)


def added_docs(task: Mapping[str, Any], turn: int) -> list[Mapping[str, Any]]:
    """Docs of the functions that are added at a turn of the user, counted from 0."""
    names = task.get("missed_function", {}).get(str(turn), [])
    return [doc for doc in _all_docs(task) if doc["name"] in names] if names else []


def check_shape(task: Mapping[str, Any]) -> None:
    """Refuse a task that BFCL's checkers cannot judge.

    Raises:
        ValueError: what is wrong.
    """
    category = task.get("category")
    if category not in CATEGORIES:
        raise ValueError(f"category must be one of {', '.join(CATEGORIES)}, not {category!r}")
    if not isinstance(task.get("id"), str):
        raise ValueError(f"id must be a text, not {task.get('id')!r}")
    _check_list(task, "question")
    if not task["question"][0]:
        raise ValueError("question must begin with a message")
    if "relevance" not in category:
        _check_list(task, "ground_truth")
    if is_multi_turn(task):
        _check_multi_turn(task)
    tools_of(docs_at_first(task))


def _check_multi_turn(task: Mapping[str, Any]) -> None:
    _check_list(task, "involved_classes")
    known = package.api_classes()
    if unknown := [name for name in task["involved_classes"] if name not in known]:
        raise ValueError(
            f"involved_classes must be of {', '.join(known)}, and {unknown[0]!r} is not"
        )
    initial_config(task)
    turns, answered = len(task["question"]), len(task["ground_truth"])
    if turns != answered:
        raise ValueError(f"has {turns} turns of the user, and ground_truth has {answered}")
    for turn, messages in enumerate(task["question"]):
        if not messages and not added_docs(task, turn):
            raise ValueError(f"question has no message at turn {turn}, where no function is added")


def _check_list(task: Mapping[str, Any], key: str) -> None:
    value = task.get(key)
    if not isinstance(value, list) or not value:
        raise ValueError(f"{key} must be a list, not empty" if key in task else f"has no {key}")


def _parsed(task: Mapping[str, Any], key: str, kind: type) -> Any:
    text = task.get(key)
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        value = None
    if not isinstance(value, kind):
        word = "list" if kind is list else "object"
        raise ValueError(f"{key} must be the text of a JSON {word}, not {repr(text)[:80]}")
    return value


def _all_docs(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [doc for api in task["involved_classes"] for doc in package.docs_of(api)]
