"""A JSON array: every object is a row, or is told with its number; so is damage."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.files.rows import load_rows
from tests.unit.files.test_lines import LINES, ROWS, objects, read

INDENTED = json.dumps(ROWS, indent=4).encode()


@pytest.mark.parametrize(
    "content",
    [
        INDENTED,
        b"\n\t " + INDENTED.replace(b"\n", b"\r\n") + b"\n\n",
        json.dumps(ROWS, ensure_ascii=False, separators=(",", ":")).encode(),
        # Many files of this name hold JSON lines.
        LINES,
    ],
)
def test_a_good_file_has_all_its_rows_and_no_problem(tmp_path, content) -> None:
    assert read(tmp_path / "a.json", content) == (ROWS, [])


@given(rows=st.lists(objects, min_size=1, max_size=4), indent=st.sampled_from([None, 0, 2]))
def test_what_json_can_hold_comes_back(tmp_path_factory, rows, indent) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    assert read(path, json.dumps(rows, indent=indent).encode()) == (rows, [])


def test_a_row_says_where_it_is(tmp_path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'[\n{"a": 1}, {"a": 2}\n]')
    assert [row.place for row in load_rows(str(path))] == [f"{path}: row 1", f"{path}: row 2"]


@given(length=st.integers(min_value=0, max_value=len(INDENTED.rstrip()) - 1))
def test_of_a_cut_file_the_rows_before_the_cut_are_read_and_the_cut_is_told(
    tmp_path_factory, length
) -> None:
    rows, problems = read(tmp_path_factory.getbasetemp() / "cut.json", INDENTED[:length])
    assert rows == ROWS[: len(rows)]
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("content", "rows", "problem"),
    [
        (b"", 0, "is an empty file; copy it again"),
        (b"[]", 0, "holds no row; make the file again"),
        (b'"text"', 0, "must be a JSON array of objects, or have an object in every line"),
        (b'[{"a": 1}, 7, {"a": 2}]', 2, "row 2: must be a JSON object, not 7"),
        (b'[{"a": 1} {"a": 2}]', 1, "is cut or damaged after row 1; copy it again"),
        (b'[{"a": 1}]\n[{"a": 2}]', 1, "more follows the array's end; it must be one JSON array"),
        (b'[{"a": 1}, ]', 1, "row 2: is not JSON (Expecting value: character 0); nothing after"),
        (b'[{"a": 1}, {"a": NaN}]', 1, "row 2: is not JSON (NaN is no number of JSON); nothing"),
        (b'[{"a": 1, "a": 2}]', 0, "row 1: is not JSON (the key 'a' is there twice); nothing"),
        (b'[{"a": "\\ud800"}]', 0, "row 1: holds '\\ud800', half of a surrogate pair"),
        (b'[{"a": "\xff"}]', 0, "is not UTF-8 (invalid start byte at byte 8)"),
        (b"\x1f\x8b\x08", 0, "is compressed with gzip; decompress it"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, content, rows, problem) -> None:
    found, problems = read(tmp_path / "a.json", content)
    assert len(found) == rows
    assert len(problems) == 1 and problems[0].startswith(f"{tmp_path}/a.json: {problem}")
