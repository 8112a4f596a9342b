"""Write a file or a folder whole or not at all.

The content is written beside its place under the name `<name>.partial`, forced to the disk, and
renamed. A reader sees the old content or the new content, never a part. A killed process leaves at
most the partial, which the next writer of the same name removes. Two processes must not write the
same name at the same time.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL = ".partial"
"""Ending of the name of what is not whole yet."""

RETIRED = ".retired"
"""Ending of the name of an old folder while the new one takes its place."""


def partial_path(path: Path) -> Path:
    """Where the content of `path` is written before it is whole."""
    return path.with_name(path.name + PARTIAL)


def write_text(path: Path, text: str) -> Path:
    """Write `text` as UTF-8 to the file `path`, which appears whole. Returns `path`."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def write_bytes(path: Path, content: bytes) -> Path:
    """Write `content` to the file `path`, which appears whole. Returns `path`."""
    with whole_file(path) as partial:
        partial.write_bytes(content)
    return path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield the name of a file to write, which becomes `path` when the block ends without an error.

    The parent folder is made if need be. After an error nothing is left of the new file, and an old
    `path` stays.
    """
    partial = partial_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(partial)
    try:
        yield partial
        publish(path)
    except BaseException:
        _try_to_remove(partial)
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a new, empty folder, which replaces `path` when the block ends without an error.

    After an error nothing is left of the new folder, and an old `path` stays.
    """
    partial, retired = partial_path(path), path.with_name(path.name + RETIRED)
    # A writer that was killed between the two renames below left the only whole folder under the
    # retired name.
    _bring_back(retired, path)
    remove(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        # A folder cannot be renamed onto one that is not empty, so the old one has to step aside
        # first.
        remove(retired)
        if path.exists():
            path.rename(retired)
        publish(path)
    except BaseException:
        _bring_back(retired, path)
        _try_to_remove(partial)
        raise
    _try_to_remove(retired)


def publish(path: Path) -> None:
    """Rename the finished partial of `path` to `path`; content and name survive a power cut.

    Raises:
        OSError: there is no partial, or `path` is a folder that is not empty.
    """
    partial = partial_path(path)
    # The content first: a name that reaches the disk before its content would point to an empty
    # file after a power cut.
    for folder, _, names in os.walk(partial):
        for name in names:
            sync(Path(folder) / name)
        sync(Path(folder))
    if partial.is_file():
        sync(partial)
    partial.replace(path)
    sync(path.parent)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Force a file's content, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _bring_back(retired: Path, path: Path) -> None:
    if retired.exists() and not path.exists():
        retired.rename(path)


def _try_to_remove(path: Path) -> None:
    # The next writer removes it anyway. An error here would hide the one that is on its way, or
    # fail a whole write.
    with suppress(OSError):
        remove(path)
