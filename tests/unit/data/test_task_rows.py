"""From rows to tasks: ids from the place, and the columns that a function makes."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from megatron_trace.config.functions import FileFunction
from megatron_trace.data.task_rows import task_rows
from megatron_trace.data.tasks import write_shards


def write_lines(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def mapped(function: Callable[..., Any]) -> FileFunction:
    return FileFunction("data.map", Path("mine.py"), function)


def read(
    pattern: str, function: Callable[..., Any] | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    problems: list[str] = []
    to_task = mapped(function) if function else None
    return [row.content for row in task_rows(pattern, problems, to_task)], problems


def test_a_line_or_a_row_of_parquet_without_an_id_is_named_after_its_place(tmp_path) -> None:
    write_lines(tmp_path / "a.b.jsonl", {"q": 1}, {"q": 2, "id": "own"})
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b'\n{"q": 3}\n'))
    pq.write_table(pa.table({"q": [4, 5]}), tmp_path / "D.PARQUET")
    tasks, problems = read(f"{tmp_path}/{{a.b.jsonl,c.jsonl.gz,D.PARQUET}}")
    assert [task["id"] for task in tasks] == ["a.b-1", "own", "c-2", "D-1", "D-2"]
    assert [task["q"] for task in tasks] == [1, 2, 3, 4, 5] and not problems


def test_the_name_holds_wherever_the_file_lies(tmp_path) -> None:
    (tmp_path / "b").mkdir()
    first = read(write_lines(tmp_path / "a.jsonl", {"q": 1}))
    assert read(write_lines(tmp_path / "b" / "a.jsonl", {"q": 1})) == first


def test_a_row_of_a_shard_gets_no_id(tmp_path) -> None:
    write_shards([{"q": 1}], str(tmp_path / "a-%d.tar"))
    assert read(f"{tmp_path}/a-0.tar") == ([{"q": 1}], [])


def test_the_function_makes_the_task_and_none_leaves_the_row_out(tmp_path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"q": "x"}, {"q": ""}, {"q": "y"})
    function = lambda row: {"question": row["q"]} if row["q"] else None  # noqa: E731
    wanted = [{"id": "a-1", "question": "x"}, {"id": "a-3", "question": "y"}]
    assert read(path, function) == (wanted, [])


@pytest.mark.parametrize("extension", ["tar", "jsonl"])
def test_a_task_keeps_the_id_of_its_row_unless_it_has_its_own(tmp_path, extension) -> None:
    rows = [{"id": "r", "q": "x"}]
    write_shards(rows, str(tmp_path / "a-%d.tar"))
    write_lines(tmp_path / "a.jsonl", *rows)
    pattern = f"{tmp_path}/*.{extension}"
    # The function may also change the row itself.
    assert read(pattern, lambda row: {"q": row.pop("id")}) == ([{"id": "r", "q": "r"}], [])
    assert read(pattern, lambda row: row | {"id": "mine"}) == ([{"id": "mine", "q": "x"}], [])


def test_the_function_sees_the_id_of_the_place(tmp_path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"q": "x"})
    assert read(path, lambda row: {"id": f"set/{row['id']}"}) == ([{"id": "set/a-1"}], [])


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda row: {"question": row["q"]}, "data.map fails: mine.py: KeyError: 'q'"),
        (lambda row: [row], "data.map must return a dict or None, not [{'id': 'a-2'}] (list)"),
        (lambda row: {"x": {1}}, "what is not plain JSON data: Object of type set is not JSON"),
        (lambda row: {"x": float("nan")}, "what is not plain JSON data: Out of range float values"),
        (lambda row: {"x": "\ud835"}, "data.map returns what is not plain JSON data: 'utf-8' code"),
        (lambda row: {"1": 0, 1: 1}, "what is not plain JSON data: is not JSON (the key '1' is"),
    ],
)
def test_what_the_function_raises_or_returns_wrongly_is_a_line_of_its_row(
    tmp_path, function, said
) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"q": 1}, {})
    good = {"id": "a-1", "q": 1}
    tasks, (problem,) = read(path, lambda row: row if "q" in row else function(row))
    assert tasks == [good]
    assert problem.startswith(f"{path}: line 2: data.map ") and said in problem


def test_a_task_that_the_function_makes_is_plain_json(tmp_path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {})
    tasks, _ = read(path, lambda row: {"pair": (1, 2), 3: "x"})
    assert tasks == [{"id": "a-1", "pair": [1, 2], "3": "x"}]
