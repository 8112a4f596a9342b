"""Which files a pattern of shards names."""

import glob

from braceexpand import braceexpand


def shard_paths(pattern: str) -> list[str]:
    """The files that `pattern` names, sorted within each glob.

    Args:
        pattern: a path, a glob, or either with `{a..b}` braces.

    Raises:
        FileNotFoundError: the pattern is empty, or it or one part of its braces matches no file.
    """
    if not pattern:
        raise FileNotFoundError("must name WebDataset shards")
    paths = []
    for part in braceexpand(pattern):
        found = sorted(glob.glob(part))
        if not found:
            raise FileNotFoundError(f"no such shard: {part}")
        paths += found
    return paths
