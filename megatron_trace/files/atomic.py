"""Write a file or a folder whole or not at all.

The content is written beside its place under a hidden name that only this module uses, forced to
the disk, and renamed. A reader sees the old content or the new content, never a part. A killed
process leaves at most files of such names, which the next writer of the same name removes. Two
processes must not write the same name at the same time.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL = ".megatron-trace-partial"
"""Ending of the name of what is not whole yet, or no longer."""

RETIRED = ".megatron-trace-retired"
"""Ending of the name of an old folder while the new one takes its place."""


def partial_path(path: Path) -> Path:
    """Where the content of `path` is written before it is whole."""
    return _own_name(path, PARTIAL)


def leftovers(folder: Path) -> list[Path]:
    """What killed writers left in `folder`; none of it was ever whole, or is needed any more."""
    return [path for path in folder.glob(f".*{PARTIAL}") if path.name != PARTIAL]


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
    partial, retired = partial_path(path), _own_name(path, RETIRED)
    _settle(path, partial, retired)
    partial.mkdir(parents=True)
    try:
        yield partial
        # Before the old folder steps aside: this takes long, and may fail.
        sync_all(partial)
        # A folder cannot be renamed onto one that is not empty.
        if path.exists():
            path.rename(retired)
        _take_name(partial, path)
    except BaseException:
        # The next writer settles what is still in the way. An error here would hide the one that
        # is on its way.
        with suppress(OSError):
            _settle(path, partial, retired)
        raise
    with suppress(OSError):
        _settle(path, partial, retired)


def _settle(path: Path, partial: Path, retired: Path) -> None:
    """Remove what a writer of the folder `path` left; bring the old folder back if it is needed."""
    # The writer ended between its two renames: this is the only whole folder.
    if retired.exists() and not path.exists():
        retired.rename(path)
    remove(partial)
    if retired.exists():
        # Not removed in place: under the retired name only a whole folder may ever be found.
        retired.rename(partial)
        remove(partial)


def publish(path: Path) -> None:
    """Rename the finished partial of `path` to `path`; content and name survive a power cut.

    Raises:
        OSError: there is no partial, or `path` is a folder that is not empty. After an error
            nothing is published.
    """
    partial = partial_path(path)
    # The content first: a name that reaches the disk before its content would point to an empty
    # file after a power cut.
    sync_all(partial)
    _take_name(partial, path)


def _take_name(partial: Path, path: Path) -> None:
    try:
        partial.replace(path)
    except OSError:
        # A file server may do the work and its answer be lost.
        if os.path.lexists(partial) or not path.exists():
            raise
    # From here on the content is there, so an error would say what is not true. Without this call
    # the name could be lost in a power cut, and some file systems refuse the call.
    with suppress(OSError):
        sync(path.parent)


def sync_all(path: Path) -> None:
    """Force a file, or a folder with all that is in it, to the disk."""
    for folder, _, names in os.walk(path):
        for name in names:
            sync(Path(folder) / name)
        sync(Path(folder))
    if not path.is_dir():
        sync(path)


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


def _own_name(path: Path, ending: str) -> Path:
    # Nobody else gives such a name to a file, so what bears it may be removed.
    return path.with_name(f".{path.name}{ending}")


def _try_to_remove(path: Path) -> None:
    # The next writer removes it anyway. An error here would hide the one that is on its way, or
    # fail a whole write.
    with suppress(OSError):
        remove(path)
