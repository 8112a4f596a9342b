"""Tasks of one setting: their ids, and what is known of their content."""

import json
from pathlib import Path
from typing import Any

import pytest

from megatron_trace.config.functions import FileFunction
from megatron_trace.data.task_set import TaskSet, read_task_set
from megatron_trace.data.tasks import write_shards
from megatron_trace.files.problems import BadData


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


def test_ids_of_places_must_be_unique_too(tmp_path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jsonl").write_text("{}\n")
    one = read_task_set("data.train", f"{tmp_path}/*/x.jsonl")
    said = f"{tmp_path}/b/x.jsonl: line 1: its id 'x-1' is that of {tmp_path}/a/x.jsonl: line 1 too"
    assert one.tasks == [{"id": "x-1"}] and one.problems == [said]


def test_a_bad_line_is_a_problem_and_the_other_lines_are_tasks(tmp_path) -> None:
    (tmp_path / "x.jsonl").write_text('{"q": 1}\n{"q": \n{"q": 3}\n')
    one = read_task_set("data.train", f"{tmp_path}/x.jsonl")
    assert [task["id"] for task in one.tasks] == ["x-1", "x-3"]
    (problem,) = one.problems
    assert problem.startswith(f"{tmp_path}/x.jsonl: line 2: is not JSON")


def test_content_is_that_of_the_mapped_tasks(tmp_path) -> None:
    (tmp_path / "x.jsonl").write_text('{"q": "Who ?"}\n{"q": "Why ?"}\n')

    def content(function: Any) -> str:
        to_task = FileFunction("data.map", tmp_path / "mine.py", function)
        return read_task_set("data.train", f"{tmp_path}/x.jsonl", to_task).content

    asked = content(lambda row: {"question": row["q"]})
    assert content(lambda row: {"question": f"{row['q']}"}) == asked
    assert content(lambda row: {"question": row["q"].lower()}) != asked
    assert content(lambda row: None if "?" not in row["q"] else {"question": row["q"]}) == asked
    assert content(lambda row: None if "Why" in row["q"] else {"question": row["q"]}) != asked


def test_a_function_that_leaves_out_every_row_is_one_line(tmp_path) -> None:
    (tmp_path / "x.jsonl").write_text("{}\n")
    nothing = FileFunction("data.map", tmp_path / "mine.py", lambda row: None)
    with pytest.raises(BadData, match=r"^data\.map leaves out every row"):
        read_task_set("data.train", f"{tmp_path}/x.jsonl", nothing)
