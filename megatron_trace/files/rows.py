"""Rows of WebDataset shards: one JSON object for each sample, or a line about why it is none."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_trace.files.archive import read_members
from megatron_trace.files.problems import refuse
from megatron_trace.files.shard_list import not_as_listed
from megatron_trace.files.shards import shard_paths


@dataclass(frozen=True)
class Row:
    """One sample of a shard.

    Attributes:
        shard: path of the shard.
        member: name of the `.json` file in it.
        content: the JSON object.
    """

    shard: str
    member: str
    content: dict[str, Any]

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return f"{self.shard}: {self.member}"


def read_rows(pattern: str, problems: list[str]) -> Iterator[Row]:
    """All rows of the shards, in file order.

    Args:
        pattern: path, glob or brace pattern of `.tar` files whose members are KEY.json.
        problems: gets a line for everything that is not read.

    Raises:
        FileNotFoundError: no file matches.
        BadData: the list of a folder's shards is damaged.
    """
    for path in shard_paths(pattern):
        before = len(problems)
        rows = 0
        for row in _read_shard(path, problems):
            rows += 1
            yield row
        if not rows and len(problems) == before:
            problems.append(f"{path}: holds no KEY.json; make the shard again")


def load_rows(pattern: str) -> list[Row]:
    """All rows of the shards, in file order.

    Raises:
        FileNotFoundError: no file matches.
        BadData: something cannot be read; `load_rows` reads all or nothing.
    """
    problems: list[str] = []
    rows = list(read_rows(pattern, problems))
    refuse(problems)
    return rows


def _read_shard(path: str, problems: list[str]) -> Iterator[Row]:
    # Before reading: a changed byte may still be JSON.
    try:
        if problem := not_as_listed(Path(path)):
            problems.append(f"{path}: {problem}")
    except OSError as error:
        problems.append(f"{path}: cannot be read ({error.strerror})")
        return
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


def parse(data: bytes) -> dict[str, Any]:
    """The JSON object in a row's bytes.

    Raises:
        ValueError: there is none, or no other program could read it as UTF-8 JSON; says why.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 ({error.reason} at byte {error.start})") from None
    try:
        content = json.loads(
            text, parse_float=_finite, parse_constant=_no_number, object_pairs_hook=_unique
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"must be a JSON object, not {text[:40]}")
    if "\\u" in text:
        _check_surrogates(content)
    return content


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(number: str) -> float:
    # Python would take 1e999 for infinity, which it could not write as JSON again.
    if not math.isfinite(value := float(number)):
        raise ValueError(f"{number} is too large a number")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Python would keep the last one only.
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return content


def _check_surrogates(content: dict[str, Any]) -> None:
    """Refuse half of a surrogate pair (\\ud800 to \\udfff alone): no tokenizer takes it."""
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise ValueError(f"holds {half}, half of a surrogate pair, which is no text") from None
