"""Folders as `Dataset.save_to_disk` writes them: Arrow streams in the order of `state.json`."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from megatron_trace.data.task_rows import task_rows
from megatron_trace.files.problems import BadData
from megatron_trace.files.rows import read_rows


def save(folder: Path, *tables: pa.Table, batch: int = 2, **state: Any) -> Path:
    """A folder of one file for each table; the names do not sort as the rows do."""
    folder.mkdir(parents=True)
    names = [f"data-{9 - number}.arrow" for number in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        with pa.ipc.new_stream(str(folder / name), table.schema) as writer:
            writer.write_table(table, max_chunksize=batch)
    content = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": "0", "_format_columns": None, "_format_kwargs": {}, "_format_type": None,
        "_output_all_columns": False, "_split": "train",
    }  # fmt: skip
    (folder / "state.json").write_text(json.dumps(content | state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def read(pattern: Path | str) -> tuple[list[dict[str, Any]], list[str]]:
    problems: list[str] = []
    return [row.content for row in read_rows(str(pattern), problems)], problems


def test_rows_come_in_the_order_of_the_state_file(tmp_path) -> None:
    first = pa.table({"q": ["a", "b", "c"], "n": [[1], [], [2, 3]]})
    second = pa.table({"q": ["d"], "n": [[4]]})
    folder = save(tmp_path / "train", first, second)
    wanted = [*first.to_pylist(), *second.to_pylist()]
    assert read(folder) == read(f"{folder}/") == (wanted, [])


def test_a_row_without_an_id_is_named_after_the_folder(tmp_path) -> None:
    for name in ("v1.0", "train"):
        save(tmp_path / name, pa.table({"q": ["a", "b"]}))
    tasks = [row.content["id"] for row in task_rows(f"{tmp_path}/*", [])]
    assert tasks == ["train-1", "train-2", "v1.0-1", "v1.0-2"]


def test_large_batches_and_dates_are_read(tmp_path) -> None:
    table = pa.table({"day": [date(2020, 1, 1)] * 3000})
    rows, problems = read(save(tmp_path / "a", table, batch=3000))
    assert rows == [{"day": "2020-01-01"}] * 3000 and not problems


def test_only_the_columns_of_the_format_are_read(tmp_path) -> None:
    table = pa.table({"q": ["a"], "x": [1]})
    chosen = {"_format_columns": ["q"]}
    assert read(save(tmp_path / "a", table, **chosen)) == ([{"q": "a"}], [])
    everything = chosen | {"_output_all_columns": True}
    assert read(save(tmp_path / "b", table, **everything)) == ([{"q": "a", "x": 1}], [])


def test_a_folder_of_splits_asks_for_one(tmp_path) -> None:
    save(tmp_path / "all" / "train", pa.table({"q": ["a"]}))
    (tmp_path / "all" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(BadData, match=r"all: holds the splits train, test; name one: .*all/train$"):
        read(tmp_path / "all")
    assert read(tmp_path / "all" / "train") == ([{"q": "a"}], [])


@pytest.mark.parametrize("key", ["_indices_files", "_indices_data_files"])
def test_an_index_over_the_rows_is_refused(tmp_path, key) -> None:
    index = {key: [{"filename": "indices.arrow"}]}
    rows, (problem,) = read(save(tmp_path / "a", pa.table({"q": ["a"]}), **index))
    assert not rows and "selected by an index; save it again after flatten_indices()" in problem


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-8], "is cut"),
        (lambda data: data[: len(data) * 3 // 4], "is damaged ("),
        (lambda data: data[:20], "is damaged ("),
        (lambda data: b"", "is damaged ("),
        (lambda data: b"x" * len(data), "is damaged ("),
    ],
)
def test_a_damaged_file_is_one_line_that_names_it(tmp_path, damage, said) -> None:
    folder = save(tmp_path / "a", pa.table({"q": ["a", "b", "c", "d"]}))
    file = folder / "data-9.arrow"
    file.write_bytes(damage(file.read_bytes()))
    _, (problem,) = read(folder)
    assert problem.startswith(f"{file}: {said}") and "copy the file again" in problem


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("", "state.json: cannot be read ("),
        ("[]", "state.json: is no JSON object"),
        ("{}", "a: state.json names no data files"),
        ('{"_data_files": [{"filename": "../b"}]}', "a: state.json names ../b, which is not in"),
        ('{"_data_files": [{"filename": "gone.arrow"}]}', "gone.arrow: cannot be read (No such"),
        ('{"_data_files": []}', "a: holds no row"),
    ],
)
def test_a_wrong_state_file_is_one_line(tmp_path, state, said) -> None:
    folder = save(tmp_path / "a", pa.table({"q": ["a"]}))
    (folder / "state.json").write_text(state)
    rows, (problem,) = read(folder)
    assert not rows and said in problem


def test_a_column_that_json_lacks_is_named(tmp_path) -> None:
    rows, (problem,) = read(save(tmp_path / "a", pa.table({"image": [b"x"]})))
    assert not rows and "the column 'image' is of type binary" in problem


def test_another_folder_is_still_refused(tmp_path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(FileNotFoundError, match="is a folder, a pipe or a device"):
        read(tmp_path / "a")
