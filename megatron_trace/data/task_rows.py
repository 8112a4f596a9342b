"""From rows to tasks: each has an id, and the columns that its environment expects."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from megatron_trace.config.functions import FileFunction
from megatron_trace.data.tasks import Task
from megatron_trace.files.json_object import parse
from megatron_trace.files.kinds import extension_of
from megatron_trace.files.remote import file_name
from megatron_trace.files.rows import Row, read_rows


def task_rows(
    pattern: str, problems: list[str], to_task: FileFunction | None = None
) -> Iterator[Row]:
    """All rows of the files as tasks, in file order. Ids may still be missing, wrong or repeated.

    A line, or a row of Parquet, without `id` gets FILE-NUMBER, such as `train-17` for the 17th line
    of train.jsonl. A row of a shard gets none.

    Args:
        problems: gets a line for everything that is not read, or of which `to_task` makes no task.
        to_task: makes a task of a row, or None to leave the row out. The task keeps the row's id,
            unless it has its own.

    Raises:
        FileNotFoundError: no file matches.
        BadData: a file is of another kind, or the list of a folder's shards is damaged.
    """
    for row in read_rows(pattern, problems):
        try:
            given = _with_id(row)
            task = given if to_task is None else _mapped(given, to_task)
        except ValueError as error:
            problems.append(f"{row.place}: {error}")
            continue
        if task is not None:
            yield replace(row, content=task)


def _with_id(row: Row) -> Task:
    if not row.number:
        return row.content
    # An id of the row's own replaces this one.
    return {"id": f"{_stem(row.shard)}-{row.number}", **row.content}


@lru_cache
def _stem(path: str) -> str:
    """The file's name without its extension; asked for with every row."""
    name = file_name(path)
    return name[: len(name) - len(extension_of(path))]


def _mapped(row: Task, to_task: FileFunction) -> Task | None:
    # The function may change the row that it gets.
    kept = {"id": row["id"]} if "id" in row else {}
    task = to_task(row)
    if task is None:
        return None
    if not isinstance(task, dict):
        kind = type(task).__name__
        raise ValueError(f"{to_task.setting} must return a dict or None, not {task!r:.40} ({kind})")
    try:
        return kept | parse(json.dumps(task, ensure_ascii=False, allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        what = " ".join(str(error).split())
        raise ValueError(f"{to_task.setting} returns what is not plain JSON data: {what}") from None
