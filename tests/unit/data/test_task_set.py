"""Tasks of one setting: their ids, and what is known of their content."""

import json
from pathlib import Path
from typing import Any

import pytest

from megatron_trace.data.task_set import TaskSet, read_task_set
from megatron_trace.data.tasks import write_shards


def read(folder: Path, tasks: list[dict[str, Any]]) -> TaskSet:
    write_shards(tasks, str(folder / "tasks-%d.tar"), rows_per_shard=2)
    return read_task_set("data.train", str(folder / "tasks-*.tar"))


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({}, "has no id"),
        ({"id": ""}, "id must be a text or a whole number, not ''"),
        ({"id": None}, "id must be a text or a whole number, not None"),
        ({"id": True}, "id must be a text"),
        ({"id": 1.5}, "id must be a text"),
        ({"id": ["a"]}, "id must be a text"),
        ({"id": "a"}, "its id 'a' is that of "),
        ({"id": 7}, "its id 7 is that of "),
    ],
)
def test_a_task_without_an_id_that_is_its_own_is_left_out(tmp_path, task, said) -> None:
    one = read(tmp_path, [{"id": "a"}, {"id": "7"}, {"id": "b"}, task])
    assert [kept["id"] for kept in one.tasks] == ["a", "7", "b"]
    (problem,) = one.problems
    assert problem.startswith(f"{tmp_path}/tasks-1.tar: 000000003.json: {said}")


def test_content_is_that_of_the_tasks_and_not_of_their_files(tmp_path) -> None:
    tasks = [{"id": n, "question": f"{n} ?"} for n in range(5)]
    one = read(tmp_path / "a", tasks)
    write_shards(tasks, str(tmp_path / "moved-%d.tar"))
    assert read_task_set("data.train", str(tmp_path / "moved-*.tar")).content == one.content
    assert one.content.startswith("5 tasks with SHA-256 ")
    edited = json.loads(json.dumps(tasks))
    edited[3]["question"] = "4 ?"
    assert read(tmp_path / "b", edited).content != one.content
    assert read(tmp_path / "c", tasks[::-1]).content != one.content
