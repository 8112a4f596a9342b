"""JSON lines, plain or compressed with gzip: one JSON object a line, read line by line."""

import gzip
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

from megatron_trace.files.archive import GZIP, first_bytes, wrong_start
from megatron_trace.files.json_object import parse

DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)
"""What gzip raises where a file is cut, or its content changed."""


def read_lines(path: str, problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number, from 1, and content of every line of `path` that is not blank.

    Args:
        path: a file of JSON lines; one that ends with `.gz` is decompressed.
        problems: gets a line for everything that cannot be read; after damage that is all the rest.
    """
    number = 0
    try:
        if problem := _wrong_kind(path):
            problems.append(f"{path}: {problem}")
            return
        with _opened(path) as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    yield number, parse(line)
                except ValueError as error:
                    problems.append(f"{path}: line {number}: {error}")
    except DAMAGED as error:
        problem = f"is damaged after line {number}" if number else "is damaged"
        problems.append(f"{path}: {problem} ({error}); copy the file again")
    except OSError as error:
        problems.append(f"{path}: cannot be read ({error.strerror or error})")


def _is_gzip(path: str) -> bool:
    return path.lower().endswith(".gz")


def _wrong_kind(path: str) -> str:
    """Why a file cannot be what its name says, by its first bytes, or ""."""
    start = first_bytes(path)
    if not start or not _is_gzip(path):
        return wrong_start(start)
    return "" if start.startswith(GZIP) else "is not compressed with gzip; name it .jsonl"


def _opened(path: str) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if _is_gzip(path) else open(path, "rb")
