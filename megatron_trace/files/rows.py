"""Rows of data files: one JSON object for each sample, or a line about why it is none.

A file is a WebDataset shard, JSON lines, a JSON array or Parquet, or a folder that the package
`datasets` saved; its extension says which (`kinds.py`). It may lie behind a URL.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from megatron_trace.files.archive import read_members
from megatron_trace.files.array import read_array
from megatron_trace.files.json_object import parse
from megatron_trace.files.kinds import ARRAY, PARQUET, SAVED_DATASET, TAR, data_paths, extension_of
from megatron_trace.files.lines import read_lines
from megatron_trace.files.parquet import read_parquet
from megatron_trace.files.problems import BadData, refuse
from megatron_trace.files.remote import is_url, listed_with, local_copy, shown
from megatron_trace.files.saved_dataset import read_saved_dataset
from megatron_trace.files.shard_list import Entries, listed, not_as_listed


@dataclass(frozen=True)
class Row:
    """One sample of a file.

    Attributes:
        shard: path of the file, or its URL without credentials.
        member: name of the `.json` file in a shard; `line 17`, or `row 17` of Parquet or an array,
            from 1.
        content: the JSON object.
        number: that line or row; 0 in a shard.
    """

    shard: str
    member: str
    content: dict[str, Any]
    number: int = 0

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return f"{self.shard}: {self.member}"


def read_rows(pattern: str, problems: list[str]) -> Iterator[Row]:
    """All rows of the files, in file order.

    Args:
        pattern: path, URL, glob or brace pattern of `.tar` files whose members are KEY.json, of
            `.jsonl` or `.jsonl.gz` files, of `.json` files with an array of objects, of `.parquet`
            files, and of folders that the package `datasets` saved.
        problems: gets a line for everything that is not read.

    Raises:
        FileNotFoundError: no file matches.
        BadData: a file is of another kind, or the list of a folder's shards is damaged.
    """
    for path in data_paths(pattern):
        yield from _read_file(path, problems)


def _read_file(path: str, problems: list[str]) -> Iterator[Row]:
    before = len(problems)
    rows = 0
    for row in _read_remote(path, problems) if is_url(path) else _read_local(path, problems):
        rows += 1
        yield row
    if not rows and len(problems) == before:
        what = "KEY.json" if extension_of(path) == TAR else "row"
        problems.append(f"{shown(path)}: holds no {what}; make the file again")


def load_rows(pattern: str) -> list[Row]:
    """All rows of the files, in file order.

    Raises:
        FileNotFoundError: no file matches.
        BadData: something cannot be read; `load_rows` reads all or nothing.
    """
    problems: list[str] = []
    rows = list(read_rows(pattern, problems))
    refuse(problems)
    return rows


def _read_remote(url: str, problems: list[str]) -> Iterator[Row]:
    """The rows of a copy; rows and problems name the URL."""
    name, found = shown(url), list[str]()
    try:
        with local_copy(url, folder=extension_of(url) == SAVED_DATASET) as copy:
            for row in _read_checked(str(copy), listed_with(url), found):
                yield replace(row, shard=name)
            problems += [line.replace(str(copy), name) for line in found]
    except FileNotFoundError as error:
        problems.append(f"{name}: {error}")
    except BadData as error:
        problems.append(str(error))


def _read_local(path: str, problems: list[str]) -> Iterator[Row]:
    yield from _read_checked(path, listed(Path(path).parent), problems)


def _read_checked(path: str, entries: Entries, problems: list[str]) -> Iterator[Row]:
    # Before reading: a changed byte may still be JSON.
    try:
        if problem := not_as_listed(Path(path), entries):
            problems.append(f"{path}: {problem}")
    except OSError as error:
        problems.append(f"{path}: cannot be read ({error.strerror})")
        return
    extension = extension_of(path)
    if extension == TAR:
        yield from _read_shard(path, problems)
    elif extension == SAVED_DATASET:
        for number, content in read_saved_dataset(path, problems):
            yield Row(path, f"row {number}", content, number)
    elif extension == ARRAY:
        for number, content in read_array(path, problems):
            yield Row(path, f"row {number}", content, number)
    elif extension == PARQUET:
        for number, content in read_parquet(path, problems):
            yield Row(path, f"row {number}", content, number)
    else:
        for number, content in read_lines(path, problems):
            yield Row(path, f"line {number}", content, number)


def _read_shard(path: str, problems: list[str]) -> Iterator[Row]:
    names: set[str] = set()
    for member, data in read_members(path, problems):
        try:
            _check_name(member, names)
            yield Row(path, member, parse(data))
        except ValueError as error:
            problems.append(f"{path}: {member}: {error}")


def _check_name(member: str, names: set[str]) -> None:
    """Refuse what webdataset would not read as one row: its key ends at the name's first dot."""
    key, _, extension = member.rpartition("/")[2].partition(".")
    if not key or extension != "json":
        raise ValueError("must be named KEY.json, with no other dot in the name")
    if member in names:
        raise ValueError("is there twice")
    names.add(member)
