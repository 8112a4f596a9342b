"""The tasks of one setting: those that can be used, and a line for whatever cannot."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from megatron_trace.config.functions import FileFunction
from megatron_trace.data.task_rows import task_rows
from megatron_trace.data.tasks import Task
from megatron_trace.files.problems import BadData
from megatron_trace.files.rows import Row


@dataclass
class TaskSet:
    """The tasks of `data.train`, or of one held-out set.

    Attributes:
        setting: dotted name of the setting that names the files.
        pattern: its value.
        rows: tasks that can be used, as far as is known, each with its place.
        problems: a line for everything that was left out.
        content: number and SHA-256 of the tasks as they were read; later checks do not change it.
    """

    setting: str
    pattern: str
    rows: list[Row]
    problems: list[str]
    content: str

    @property
    def tasks(self) -> list[Task]:
        """The tasks alone."""
        return [row.content for row in self.rows]

    def leave_out(self, row: Row, problem: str) -> str:
        """Note why a task cannot be used; the caller removes its row."""
        line = f"{row.place}: task {row.content['id']}: {problem}"
        self.problems.append(line)
        return line


def read_task_set(
    setting: str, pattern: str, to_task: FileFunction | None = None, prefix: str = ""
) -> TaskSet:
    """Read the files `pattern`, and check that every task has an `id` that no other one has.

    Args:
        to_task: makes a task of a row; None: the rows are tasks.
        prefix: put before every id, which becomes a text; "": ids stay as they are.

    Raises:
        FileNotFoundError: no file matches.
        BadData: a file is of another kind, the list of a folder's shards is damaged, or `to_task`
            leaves out every row.
    """
    problems: list[str] = []
    kept = with_own_ids(task_rows(pattern, problems, to_task), problems)
    if to_task and not kept and not problems:
        raise BadData(f"{to_task.setting} leaves out every row; it returns None for each")
    if prefix:
        kept = [_prefixed(row, prefix) for row in kept]
    return TaskSet(setting, pattern, kept, problems, _content(kept))


def with_own_ids(rows: Iterable[Row], problems: list[str]) -> list[Row]:
    """The rows that have an `id` which no row before them has; `problems` gets a line for others."""
    kept: dict[str, Row] = {}
    for row in rows:
        if problem := _wrong_id(row.content, kept):
            problems.append(f"{row.place}: {problem}")
        else:
            kept[str(row.content["id"])] = row
    return list(kept.values())


def _wrong_id(task: Task, rows: dict[str, Row]) -> str:
    if "id" not in task:
        return "has no id"
    name: Any = task["id"]
    # Ids go into the names of rollouts, which seed their randomness.
    if not isinstance(name, str | int) or isinstance(name, bool) or name == "":
        return f"id must be a text or a whole number, not {name!r}"
    if str(name) in rows:
        return f"its id {name!r} is that of {rows[str(name)].place} too"
    return ""


def _prefixed(row: Row, prefix: str) -> Row:
    return replace(row, content=row.content | {"id": f"{prefix}{row.content['id']}"})


def _content(rows: Sequence[Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row.content, sort_keys=True).encode() + b"\n")
    return f"{len(rows)} tasks with SHA-256 {digest.hexdigest()[:16]}"
