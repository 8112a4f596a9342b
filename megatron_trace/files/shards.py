"""Which files a pattern of shards names."""

import glob
from pathlib import Path

from braceexpand import braceexpand

from megatron_trace.files.shard_list import NAME, missing


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
        raise FileNotFoundError("must name WebDataset shards")
    paths = []
    for part in _parts(pattern):
        found = sorted(glob.glob(part))
        if not found:
            raise FileNotFoundError(f"no such shard: {part}")
        for folder in sorted({Path(path).parent for path in found}):
            if lost := missing(folder, Path(part).name):
                raise FileNotFoundError(f"{folder / lost[0]} is in {folder / NAME}, but missing")
        paths += found
    return paths


def _parts(pattern: str) -> list[str]:
    try:
        return list(braceexpand(pattern))
    except ValueError as error:
        raise FileNotFoundError(str(error)) from None
