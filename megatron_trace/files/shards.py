"""Which files a pattern names."""

import glob
import math
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from braceexpand import braceexpand

from megatron_trace.files.shard_list import NAME, missing

MOST = 1_000_000
"""Most files, or globs, that the braces of a pattern may stand for."""

RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)")


def shard_paths(pattern: str) -> list[str]:
    """The files that `pattern` names, sorted within each glob.

    Args:
        pattern: a path, a glob, or either with `{a..b}` braces.

    Raises:
        FileNotFoundError: the pattern is empty, or it or one part of its braces matches no file, or
            misses a file of the folder's list.
        BadData: a folder's list is damaged.
    """
    if not pattern:
        raise FileNotFoundError("must name data files")
    paths = []
    for part in _parts(pattern):
        found = sorted(glob.glob(part))
        if not found:
            raise FileNotFoundError(f"no such file: {part}")
        # Reading from a pipe or a device might never end.
        if others := [path for path in found if not Path(path).is_file()]:
            raise FileNotFoundError(f"{others[0]} is a folder, a pipe or a device")
        for folder in sorted({Path(path).parent for path in found}):
            if lost := missing(folder, Path(part).name):
                raise FileNotFoundError(f"{folder / lost[0]} is in {folder / NAME}, but missing")
        paths += found
    return paths


def _parts(pattern: str) -> Iterator[str]:
    """The pattern without its braces, part by part."""
    too_many = f"its braces stand for more than {MOST:,} files"
    # braceexpand holds every number of a range in memory before it gives the first part.
    try:
        sizes = [abs(int(last) - int(first)) + 1 for first, last in RANGE.findall(pattern)]
        if math.prod(sizes) > MOST:
            raise FileNotFoundError(too_many)
        parts = braceexpand(pattern)
    # Unbalanced braces, or a number of thousands of digits.
    except ValueError as error:
        raise FileNotFoundError(str(error)) from None
    yield from islice(parts, MOST)
    if next(parts, None) is not None:
        raise FileNotFoundError(too_many)
