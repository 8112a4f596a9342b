"""JSON lines: every line is a row, or is told with its number; so is damage of a compressed file."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.files.rows import load_rows, read_rows

ROWS = [{"id": str(n), "question": f"Où est {n} ?" * n} for n in range(40)]
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
PACKED = gzip.compress(LINES, mtime=0)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts, values, max_size=3)


def read(path: Path, content: bytes) -> tuple[list[dict], list[str]]:
    path.write_bytes(content)
    problems: list[str] = []
    rows = [row.content for row in read_rows(str(path), problems)]
    return rows, problems


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.jsonl", LINES.rstrip()),
        ("a.jsonl", LINES.replace(b"\n", b"\r\n")),
        ("a.jsonl", b"\n" + LINES + b" \n\n"),
        ("a.jsonl.gz", PACKED),
        ("a.jsonl.gz", PACKED + gzip.compress(b"", mtime=0)),
    ],
)
def test_a_good_file_has_all_its_rows_and_no_problem(tmp_path, name, content) -> None:
    assert read(tmp_path / name, content) == (ROWS, [])


@given(rows=st.lists(objects, min_size=1, max_size=4), packed=st.booleans())
def test_what_json_can_hold_comes_back(tmp_path_factory, rows, packed) -> None:
    content = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    name = "any.jsonl.gz" if packed else "any.jsonl"
    path = tmp_path_factory.getbasetemp() / name
    assert read(path, gzip.compress(content) if packed else content) == (rows, [])


def test_a_row_says_where_it_is_and_blank_lines_count(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\n{"a": 1}\n\n{"a": 2}\n')
    assert [row.place for row in load_rows(str(path))] == [f"{path}: line 2", f"{path}: line 4"]
    assert [row.number for row in load_rows(str(path))] == [2, 4]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"id": "x", ', "is not JSON (Expecting property name enclosed in double quotes: char"),
        (b"[1]", "must be a JSON object, not [1]"),
        (b"3", "must be a JSON object, not 3"),
        (b'{"id": NaN}', "NaN is no number of JSON"),
        (b'{"id": "\xff"}', "is not UTF-8"),
        (b'{"id": 1, "id": 2}', "the key 'id' is there twice"),
        (b'{"a": "\\ud835"}', "half of a surrogate pair"),
        (b'{"a": 1} {"a": 2}', "is not JSON (Extra data: character 9)"),
    ],
)
def test_a_line_that_is_no_row_is_named_and_the_others_are_read(tmp_path, line, said) -> None:
    lines = LINES.splitlines(keepends=True)
    content = b"".join([*lines[:16], line + b"\n", *lines[16:]])
    for name, data in (("a.jsonl", content), ("a.jsonl.gz", gzip.compress(content))):
        rows, problems = read(tmp_path / name, data)
        assert rows == ROWS
        (problem,) = problems
        assert problem.startswith(f"{tmp_path / name}: line 17: ") and said in problem


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", "is an empty file; copy it again"),
        ("a.jsonl", b"\n \n", "holds no row; make the file again"),
        ("a.jsonl", PACKED, "is compressed with gzip; decompress it"),
        ("a.jsonl.gz", b"", "is an empty file; copy it again"),
        ("a.jsonl.gz", LINES, "is not compressed with gzip; name it .jsonl"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0), "holds no row"),
        ("a.jsonl.gz", PACKED[:-9], "is damaged"),
        ("a.jsonl.gz", PACKED + b"more", "is damaged after line 40"),
    ],
)
def test_what_is_no_whole_file_is_told(tmp_path, name, content, said) -> None:
    _, problems = read(tmp_path / name, content)
    assert len(problems) == 1 and problems[0].startswith(f"{tmp_path / name}: {said}")


@pytest.mark.parametrize("end", range(1, len(PACKED), 23))
def test_a_compressed_file_that_is_cut_anywhere_is_told(tmp_path, end) -> None:
    rows, problems = read(tmp_path / "a.jsonl.gz", PACKED[:end])
    assert rows == ROWS[: len(rows)]
    (problem,) = problems
    assert "; copy the file again" in problem or "name it .jsonl" in problem


# The first bytes after the magic hold the time and the system, which say nothing of the content.
@given(place=st.integers(10, len(PACKED) - 1), bit=st.integers(0, 7))
def test_a_changed_byte_of_a_compressed_file_changes_no_row_without_a_line(
    tmp_path_factory, place, bit
) -> None:
    changed = bytearray(PACKED)
    changed[place] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "changed.jsonl.gz"
    rows, problems = read(path, bytes(changed))
    assert rows == ROWS or problems


def test_a_file_that_may_not_be_read_is_told(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINES)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("megatron_trace.files.lines.first_bytes", refuse)
    problems: list[str] = []
    assert not list(read_rows(str(path), problems))
    assert problems == [f"{path}: cannot be read (Permission denied)"]
