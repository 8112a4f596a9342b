"""Which files a pattern names."""

import glob
import math
import re
from collections.abc import Callable, Iterator
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
    return [path for part in parts(pattern) for path in matches(part)]


def matches(part: str, fits: Callable[[Path], bool] = Path.is_file) -> list[str]:
    """The files that a path or a glob without braces names, sorted.

    Args:
        fits: whether what is found can be read.

    Raises:
        FileNotFoundError, BadData: as `shard_paths` does.
    """
    found = sorted(glob.glob(part))
    if not found:
        raise FileNotFoundError(f"no such file: {part}")
    # Reading from a pipe or a device might never end.
    if others := [path for path in found if not fits(Path(path))]:
        raise FileNotFoundError(f"{others[0]} is a folder, a pipe or a device")
    for folder in sorted({Path(path).parent for path in found}):
        if lost := missing(folder, Path(part).name):
            raise FileNotFoundError(f"{folder / lost[0]} is in {folder / NAME}, but missing")
    return found


def parts(pattern: str) -> Iterator[str]:
    """The pattern without its braces, part by part.

    Raises:
        FileNotFoundError: it is empty, or its braces are wrong or stand for too many.
    """
    if not pattern:
        raise FileNotFoundError("must name data files")
    too_many = f"its braces stand for more than {MOST:,} files"
    # braceexpand holds every number of a range in memory before it gives the first part.
    try:
        sizes = [abs(int(last) - int(first)) + 1 for first, last in RANGE.findall(pattern)]
        if math.prod(sizes) > MOST:
            raise FileNotFoundError(too_many)
        expanded = braceexpand(pattern)
    # Unbalanced braces, or a number of thousands of digits.
    except ValueError as error:
        raise FileNotFoundError(str(error)) from None
    yield from islice(expanded, MOST)
    if next(expanded, None) is not None:
        raise FileNotFoundError(too_many)
