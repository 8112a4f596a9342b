"""Parquet: a row is a plain JSON object, or is told with its number; so is damage."""

import json
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.files.rows import load_rows, read_rows

ROWS: list[dict[str, Any]] = [
    {"question": f"Où est {n} ?", "answers": ["a", "b"][: n % 3], "hops": n, "share": n / 2,
     "extra": {"kind": "x", "ids": [n, None]}, "good": n % 2 == 0, "none": None}
    for n in range(2_500)
]  # fmt: skip


def write(path: Path, *columns: tuple[str, pa.Array]) -> str:
    names, arrays = zip(*columns, strict=True)
    pq.write_table(pa.Table.from_arrays(list(arrays), list(names)), path)
    return str(path)


def read(pattern: str) -> tuple[list[dict], list[str]]:
    problems: list[str] = []
    return [row.content for row in read_rows(pattern, problems)], problems


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path.read_bytes()


def test_a_good_file_has_all_its_rows_in_order(tmp_path, good) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(good)
    rows = load_rows(str(path))
    assert [row.content for row in rows] == ROWS
    assert rows[1_999].place == f"{path}: row 2000" and rows[1_999].number == 2_000
    json.dumps([row.content for row in rows], allow_nan=False)


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
whole = st.integers(-(2**63), 2**63 - 1)


@given(rows=st.lists(st.tuples(st.none() | text, whole, st.lists(text)), min_size=1))
def test_texts_numbers_and_lists_come_back(tmp_path_factory, rows) -> None:
    kind = pa.struct([("t", pa.string()), ("n", pa.int64()), ("l", pa.list_(pa.string()))])
    wanted = [{"one": dict(zip("tnl", row, strict=True))} for row in rows]
    array = pa.array([row["one"] for row in wanted], kind)
    path = write(tmp_path_factory.getbasetemp() / "any.parquet", ("one", array))
    assert read(path) == (wanted, [])


def test_dates_become_iso_texts_and_every_kind_of_text_is_text(tmp_path) -> None:
    moment = datetime(2026, 3, 1, 12, 30, tzinfo=timezone(timedelta(hours=1)))
    path = write(
        tmp_path / "a.parquet",
        ("day", pa.array([date(2026, 3, 1)])),
        ("at", pa.array([[moment]], pa.list_(pa.timestamp("ns", "+01:00")))),
        ("plain", pa.array([datetime(2026, 3, 1)], pa.timestamp("ms"))),
        ("large", pa.array(["a"], pa.large_string())),
        ("word", pa.array(["a"]).dictionary_encode()),
        ("small", pa.array([0.5], pa.float16())),
    )
    assert read(path) == ([{
        "day": "2026-03-01", "at": ["2026-03-01T12:30:00+01:00"], "plain": "2026-03-01T00:00:00",
        "large": "a", "word": "a", "small": 0.5,
    }], [])  # fmt: skip


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("image", pa.array([b"x"]), "the column 'image' is of type binary, which JSON lacks"),
        ("image", pa.array([{"bytes": b"x"}]), "the column 'image.bytes' is of type binary"),
        ("images", pa.array([[b"x"]]), "the column 'images' is of type binary"),
        ("price", pa.array([Decimal("1.5")]), "the column 'price' is of type decimal128(2, 1)"),
        ("took", pa.array([timedelta(1)]), "the column 'took' is of type duration"),
        ("map", pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), "the column 'map' is of"),
        ("id", pa.array([1]), "the column 'id' is there twice"),
    ],
)
def test_a_column_that_json_lacks_is_one_line_for_the_file(tmp_path, name, array, said) -> None:
    path = write(tmp_path / "a.parquet", ("id", pa.array([7])), (name, array))
    rows, (problem,) = read(path)
    assert not rows and problem.startswith(f"{path}: {said}")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (pa.array([1.0, float("nan"), 3.0]), "column x: nan is no number of JSON"),
        (pa.array([1, 2**62, 3], pa.timestamp("us")), "cannot be read (date value out of range)"),
        (pa.array([1000, 1, 3000], pa.timestamp("ns")), "cannot be read (Nanosecond resolution"),
        (
            pa.Array.from_buffers(
                pa.string(), 3, pa.array([b"a", b"\xff", b"c"], pa.binary()).buffers()
            ),
            "cannot be read ('utf-8' codec can't decode",
        ),
    ],
)
def test_a_value_that_json_lacks_is_told_and_the_other_rows_are_read(tmp_path, bad, said) -> None:
    path = write(tmp_path / "a.parquet", ("n", pa.array([1, 2, 3])), ("x", bad))
    rows, (problem,) = read(path)
    assert [row["n"] for row in rows] == [1, 3]
    assert problem.startswith(f"{path}: row 2: {said}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is an empty file; copy it again"),
        (b'{"id": 1}\n' * 10, "is no Parquet, or damaged (Parquet magic bytes not found"),
        (b"\x1f\x8b more", "is compressed with gzip; decompress it"),
        (b"PAR1" + b"x" * 90 + b"PAR1", "is no Parquet, or damaged"),
    ],
)
def test_what_is_no_parquet_is_told(tmp_path, content, said) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    rows, (problem,) = read(str(path))
    assert not rows and problem.startswith(f"{path}: {said}") and "\n" not in problem


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_is_told(tmp_path, good, share) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(good[: int(len(good) * share)])
    rows, (problem,) = read(str(path))
    assert not rows and problem.endswith("; copy the file again")


def test_damage_within_is_told_after_the_last_row_that_was_read(tmp_path, good) -> None:
    path = tmp_path / "a.parquet"
    half = pa.Table.from_pylist(ROWS[:1_250])
    with pq.ParquetWriter(path, half.schema, write_page_checksum=True) as writer:
        writer.write_table(half)
        first = path.stat().st_size
        writer.write_table(half)
    content = bytearray(path.read_bytes())
    content[first + 200] ^= 1
    path.write_bytes(content)
    rows, (problem,) = read(str(path))
    assert rows and rows == ROWS[: len(rows)]
    assert f"is damaged after row {len(rows)} (" in problem


def test_a_file_without_rows_is_told(tmp_path) -> None:
    path = write(tmp_path / "a.parquet", ("n", pa.array([], pa.int64())))
    assert read(path) == ([], [f"{path}: holds no row; make the file again"])


def test_a_column_of_one_row_group_is_not_held_whole(tmp_path) -> None:
    texts = pa.array([f"{n:0800d}" for n in range(20_000)])
    path = tmp_path / "a.parquet"
    table = pa.table({"text": texts})
    pq.write_table(table, path, compression="none", use_dictionary=False)
    before = pa.total_allocated_bytes()
    rows = read_rows(str(path), [])
    assert next(rows).content == {"text": "0" * 800}
    assert pa.total_allocated_bytes() - before < table.nbytes / 4


def test_a_changed_number_is_told_where_the_file_has_checksums(tmp_path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"n": list(range(1_000_000, 1_000_100))})
    plain = {"compression": "none", "use_dictionary": False}
    pq.write_table(table, path, write_page_checksum=True, **plain)
    content = path.read_bytes()
    number = (1_000_050).to_bytes(8, "little")
    assert content.count(number) == 1
    path.write_bytes(content.replace(number, (7).to_bytes(8, "little")))
    rows, (problem,) = read(str(path))
    assert not rows and "copy the file again" in problem
