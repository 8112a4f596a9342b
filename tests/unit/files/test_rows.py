"""Rows of shards: all of them, or a line for whatever is not read."""

import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.data.tasks import write_shards
from megatron_trace.files.problems import BadData
from megatron_trace.files.rows import load_rows, read_rows
from megatron_trace.files.shard_list import list_shards

ROWS = [{"id": str(n), "question": f"Où est {n} ?" * n} for n in range(12)]


def archive(members: Iterable[tuple[str, bytes]], **header: object) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in header.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def members() -> list[tuple[str, bytes]]:
    return [(f"{n:03d}.json", json.dumps(row).encode()) for n, row in enumerate(ROWS)]


GOOD = archive(members())


def read(path: Path, content: bytes) -> tuple[list[dict], list[str]]:
    path.write_bytes(content)
    problems: list[str] = []
    rows = [row.content for row in read_rows(str(path), problems)]
    return rows, problems


def test_a_good_shard_has_all_its_rows_and_no_problem(tmp_path) -> None:
    assert read(tmp_path / "a.tar", GOOD) == (ROWS, [])


def test_a_shard_that_is_cut_anywhere_is_told_or_complete(tmp_path) -> None:
    for end in range(0, len(GOOD), 97):
        rows, problems = read(tmp_path / "a.tar", GOOD[:end])
        assert rows == ROWS[: len(rows)]
        assert len(problems) == 1 or (rows == ROWS and not problems)
        assert all(problem.startswith(f"{tmp_path}/a.tar: ") for problem in problems)


def test_a_shard_that_is_cut_between_two_members_is_told(tmp_path) -> None:
    # Blocks are 512 bytes: tarfile takes the end of the file at any of them for the archive's end.
    content_end = GOOD.rindex(b"?") + 1
    blocks = range(512, content_end + 512, 512)
    for end in blocks:
        rows, problems = read(tmp_path / "a.tar", GOOD[:end])
        assert len(problems) == 1, end
    assert rows == ROWS and "is cut after 011.json; copy the file again" in problems[0]


@given(place=st.integers(0, len(GOOD) - 1), bit=st.integers(0, 7))
def test_a_changed_byte_loses_no_row_without_a_line(tmp_path_factory, place, bit) -> None:
    changed = bytearray(GOOD)
    changed[place] ^= 1 << bit
    rows, problems = read(tmp_path_factory.getbasetemp() / "changed.tar", bytes(changed))
    assert len(rows) == len(ROWS) or problems


@given(place=st.integers(0, 9_000), bit=st.integers(0, 7))
def test_in_a_listed_shard_every_changed_byte_is_told(tmp_path_factory, place, bit) -> None:
    folder = tmp_path_factory.getbasetemp() / "listed"
    (path,) = write_shards(ROWS, str(folder / "a-%d.tar"))
    changed = bytearray(path.read_bytes())
    changed[place] ^= 1 << bit
    _, problems = read(path, bytes(changed))
    assert "has not the SHA-256 in shards.json" in problems[0]


def test_a_listed_shard_that_is_shorter_or_missing_is_told(tmp_path) -> None:
    first, second = write_shards(ROWS, str(tmp_path / "a-%d.tar"), rows_per_shard=6)
    write_shards(ROWS, str(tmp_path / "b-%d.tar"))
    assert len(load_rows(str(tmp_path / "*.tar"))) == 24
    _, problems = read(first, first.read_bytes()[:-512])
    assert "bytes, not the" in problems[0] and len(problems) == 1
    second.unlink()
    with pytest.raises(FileNotFoundError, match=r"a-1\.tar is in .*shards\.json, but missing"):
        load_rows(str(tmp_path / "a-*.tar"))
    assert len(load_rows(str(tmp_path / "b-*.tar"))) == 12


def test_shards_that_are_written_again_are_listed_again(tmp_path) -> None:
    pattern = str(tmp_path / "a-%d.tar")
    _, second = write_shards(ROWS, pattern, rows_per_shard=6)
    write_shards(ROWS, pattern)
    second.unlink()
    assert [row.content for row in load_rows(str(tmp_path / "a-*.tar"))] == ROWS


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a-0.tar": 1}', '{"a-0.tar": {"bytes": 1}}'])
def test_a_damaged_list_is_one_line(tmp_path, text) -> None:
    write_shards(ROWS, str(tmp_path / "a-%d.tar"))
    (tmp_path / "shards.json").write_text(text)
    with pytest.raises(BadData, match=r"shards\.json: is damaged .*remove shards\.json"):
        load_rows(str(tmp_path / "a-*.tar"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is an empty file"),
        (b"no archive " * 100, "is no tar archive, or a damaged one"),
        (b"short", "is no tar archive, or a damaged one"),
        (gzip.compress(GOOD, mtime=0), "is compressed with gzip; decompress it"),
        (archive([]), "holds no KEY.json"),
        (GOOD + GOOD, "has data behind the end marker after 011.json"),
        (GOOD[:1024] + b"\xff" + GOOD[1025:], "is damaged after 000.json"),
    ],
)
def test_what_is_no_whole_archive_is_told(tmp_path, content, said) -> None:
    _, problems = read(tmp_path / "a.tar", content)
    assert len(problems) == 1 and problems[0].startswith(f"{tmp_path / 'a.tar'}: {said}")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("v1.0_7.json", b"{}", "must be named KEY.json, with no other dot"),
        (".json", b"{}", "must be named KEY.json"),
        ("._000.json", b"{}", "must be named KEY.json"),
        ("7.txt", b"{}", "must be named KEY.json"),
        ("7", b"{}", "must be named KEY.json"),
        ("003.json", b"{}", "is there twice"),
        ("7.json", b"", "is not JSON"),
        ("7.json", b'{"id": "x", ', "is not JSON"),
        ("7.json", b'{"id": NaN}', "NaN is no number of JSON"),
        ("7.json", b'{"id": 1e999}', "1e999 is too large a number"),
        ("7.json", b'{"id": 1, "id": 2}', "the key 'id' is there twice"),
        ("7.json", b"[" * 100_000, "is not JSON"),
        ("7.json", b"[1]", r"must be a JSON object, not [1]"),
        ("7.json", b'{"id": "\xff"}', "is not UTF-8 (invalid start byte at byte 8)"),
        ("7.json", "{}".encode("utf-16"), "is not UTF-8"),
        ("7.json", b'{"a": ["\\ud835"]}', r"holds '\ud835', half of a surrogate pair"),
        ("7.json", b'{"\\udc00": 1}', r"holds '\udc00', half of a surrogate pair"),
    ],
)
def test_a_member_that_is_no_row_is_named_and_the_others_are_read(
    tmp_path, name, content, said
) -> None:
    rows, problems = read(tmp_path / "a.tar", archive([*members(), (name, content)]))
    assert rows == ROWS
    (problem,) = problems
    assert problem.startswith(f"{tmp_path / 'a.tar'}: {name}: ") and said in problem


def test_a_whole_surrogate_pair_is_text(tmp_path) -> None:
    rows, problems = read(tmp_path / "a.tar", archive([("7.json", b'{"a": "\\ud835\\udc00"}')]))
    assert rows == [{"a": "\U0001d400"}] and not problems


def test_folders_are_passed_over_and_links_are_told(tmp_path) -> None:
    folder = archive([("rows", b"")], type=tarfile.DIRTYPE)[:512]
    link = archive([("8.json", b"")], type=tarfile.SYMTYPE, linkname="000.json")[:512]
    rows, problems = read(tmp_path / "a.tar", folder + link + GOOD)
    assert rows == ROWS
    assert problems == [f"{tmp_path / 'a.tar'}: 8.json: neither a file nor a folder"]


def test_all_or_nothing_names_the_first_problem_and_counts_the_others(tmp_path) -> None:
    bad = [(f"{n}.json", b"") for n in range(3)]
    (tmp_path / "a.tar").write_bytes(archive(bad))
    with pytest.raises(BadData, match=r"a\.tar: 0\.json: is not JSON .*\(and 2 more\)$"):
        load_rows(str(tmp_path / "a.tar"))


def test_what_is_no_file_and_braces_without_an_end_are_one_line(tmp_path) -> None:
    (tmp_path / "a.tar").mkdir()
    os.mkfifo(tmp_path / "b.tar")
    for name in ("a.tar", "b.tar"):
        with pytest.raises(FileNotFoundError, match=f"{name} is a folder, a pipe or a device"):
            load_rows(str(tmp_path / name))
    with pytest.raises(FileNotFoundError, match="Unbalanced braces"):
        load_rows(str(tmp_path / "a-{0..1.tar"))


def test_one_pattern_may_mix_the_kinds(tmp_path) -> None:
    write_shards(ROWS[:4], str(tmp_path / "a-%d.tar"))
    lines = [json.dumps(row).encode() + b"\n" for row in ROWS]
    (tmp_path / "b.jsonl").write_bytes(b"".join(lines[4:8]))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b"".join(lines[8:10])))
    pq.write_table(pa.Table.from_pylist(ROWS[10:]), tmp_path / "d.parquet")
    assert [
        row.content for row in load_rows(f"{tmp_path}/{{a-*.tar,[bc].jsonl*,d.parquet}}")
    ] == ROWS


def test_a_listed_file_of_any_kind_is_compared_with_the_list(tmp_path) -> None:
    (tmp_path / "b.jsonl").write_bytes(b'{"id": 1}\n')
    list_shards([tmp_path / "b.jsonl"], "b.jsonl")
    assert read(tmp_path / "b.jsonl", b'{"id": 1}\n') == ([{"id": 1}], [])
    _, (problem,) = read(tmp_path / "b.jsonl", b'{"id": 2}\n')
    assert "has not the SHA-256 in shards.json" in problem
