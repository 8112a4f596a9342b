"""The files in a tar archive, read to its end: what is cut or damaged is told, never left out."""

import tarfile
from collections.abc import Iterator
from typing import IO

END_BYTES = 2 * tarfile.BLOCKSIZE
"""Zero bytes that end an archive."""

CHUNK_BYTES = 1 << 20

GZIP = b"\x1f\x8b"

COMPRESSED = {
    GZIP: "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
"""First bytes of compressed files."""

FAULTS = (tarfile.TarError, EOFError, ValueError, OverflowError)
"""What tarfile raises where an archive is damaged."""


def read_members(path: str, problems: list[str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file in the uncompressed tar archive `path`, in its order.

    Args:
        problems: gets a line for everything that cannot be read; after damage that is all the rest.
    """
    last = ""
    try:
        if problem := wrong_start(first_bytes(path)):
            problems.append(f"{path}: {problem}")
            return
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                # Otherwise the headers of all members stay in memory.
                archive.members.clear()  # type: ignore[attr-defined]
                if member.isreg():
                    yield member.name, _content(archive, member)
                elif not member.isdir():
                    problems.append(f"{path}: {member.name}: neither a file nor a folder")
                last = member.name
            # tarfile takes damage after the first member, or a missing end, for the end.
            if problem := _wrong_end(file, archive.offset):
                place = f"after {last}" if last else "from its beginning"
                problems.append(f"{path}: {problem} {place}; copy the file again")
    except OSError as error:
        problems.append(f"{path}: cannot be read ({error.strerror or error})")
    except FAULTS as error:
        problem = f"is damaged after {last}" if last else "is no tar archive, or a damaged one"
        problems.append(f"{path}: {problem} ({error}); copy the file again")


def first_bytes(path: str) -> bytes:
    """The first 8 bytes of a file, or all.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return file.read(8)


def wrong_start(start: bytes) -> str:
    """Why a file that should not be compressed is not as it should be, by its first bytes, or ""."""
    if not start:
        return "is an empty file; copy it again"
    for magic, name in COMPRESSED.items():
        if start.startswith(magic):
            return f"is compressed with {name}; decompress it"
    return ""


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    reader = archive.extractfile(member)
    assert reader is not None, "a regular file has content"
    content = reader.read()
    if len(content) != member.size:
        raise EOFError(f"{member.name} is cut")
    return content


def _wrong_end(file: IO[bytes], offset: int) -> str:
    """What is wrong with what follows the last member, which ends at `offset`, or ""."""
    file.seek(offset)
    end = file.read(END_BYTES)
    if not end.strip(b"\0"):
        if len(end) < END_BYTES:
            return "is cut"
        # Archives that were put end to end: tar itself would read only the first.
        while chunk := file.read(CHUNK_BYTES):
            if chunk.strip(b"\0"):
                return "has data behind the end marker"
        return ""
    return "is damaged"
