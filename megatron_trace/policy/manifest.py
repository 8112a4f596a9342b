"""A checkpoint's manifest: size and checksum of every file, to notice a changed file."""

import json
import zlib
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

from torch import distributed

from megatron_trace.files.atomic import write_text

FILE = "manifest.json"
NOTES = "checksums_{rank}.json"
BLOCK_BYTES = 1 << 20

Entry = dict[str, int | str]
"""`bytes` and `crc32` (eight hexadecimal digits) of one file."""


class DamagedCheckpoint(ValueError):
    """A checkpoint is incomplete, or a file is not what was written; the message names it."""


def checksum(path: Path) -> Entry:
    """Size and CRC-32 of a file."""
    size, value = 0, 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            size, value = size + len(block), zlib.crc32(block, value)
    return {"bytes": size, "crc32": f"{value:08x}"}


def note_checksums(folder: Path, rank: int, files: Iterable[Path]) -> None:
    """Leave the entries of `files`, which train rank `rank` has just written, for
    `written_checksums`.
    """
    entries = {str(path.relative_to(folder)): checksum(path) for path in files}
    (folder / NOTES.format(rank=rank)).write_text(json.dumps(entries), encoding="utf-8")


def written_checksums(folder: Path) -> dict[str, Entry]:
    """Read the entries that the ranks noted, and remove their files."""
    known: dict[str, Entry] = {}
    for file in folder.glob(NOTES.format(rank="*")):
        known |= json.loads(file.read_text(encoding="utf-8"))
        file.unlink()
    return known


def write_manifest(folder: Path, known: Mapping[str, Entry] | None = None) -> None:
    """Describe every file of `folder` in its manifest.json.

    Args:
        folder: a finished checkpoint.
        known: entries that are already computed, by path relative to `folder`.
    """
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    known = known or {}
    # The manifest is written last and whole: where it can be read, the checkpoint is complete.
    files = {name: known.get(name) or checksum(folder / name) for name in names if name != FILE}
    write_text(folder / FILE, json.dumps({"files": files}, indent=1))


def verify(
    folder: Path, part: int = 0, parts: int = 1, *, names: Container[str] | None = None
) -> None:
    """Compare the files of `folder` with its manifest.

    Args:
        part, parts: read only every `parts`-th file, starting with number `part`, so that ranks
            share the work.
        names: of these files only; None: of all.

    Raises:
        DamagedCheckpoint: there is no manifest, a file is missing, or a file is not what was
            written.
    """
    files = _read_manifest(folder)
    for name, expected in sorted(files.items())[part::parts]:
        if names is not None and name not in names:
            continue
        try:
            found = checksum(folder / name)
        except (OSError, ValueError) as error:
            # A ValueError is of a name that no file can have.
            problem = getattr(error, "strerror", None) or error
            raise DamagedCheckpoint(f"{folder / name} cannot be read: {problem}") from None
        if found != expected:
            raise DamagedCheckpoint(
                f"{folder / name} is damaged: {found['bytes']} bytes with CRC-32 {found['crc32']}, "
                f"but {expected['bytes']} bytes with {expected['crc32']} were written"
            )


def _read_manifest(folder: Path) -> dict[str, Entry]:
    """The entries of `folder`/manifest.json by file name.

    Raises:
        DamagedCheckpoint: there is none, or it is not one that `write_manifest` has written.
    """
    try:
        files = json.loads((folder / FILE).read_text(encoding="utf-8"))["files"]
        for name, entry in files.items():
            if not isinstance(entry, dict) or entry.keys() != {"bytes", "crc32"}:
                raise ValueError(f"{name} has no size and checksum")
    # A file of any content can give any of these.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedCheckpoint(
            f"{folder} is no complete checkpoint: no readable {FILE} ({error})"
        ) from None
    return files


def shared_verify(folder: Path) -> str:
    """What is wrong with the files of `folder`, or "". The ranks share the reading. Collective."""
    own = ""
    try:
        verify(folder, distributed.get_rank(), distributed.get_world_size())
    except DamagedCheckpoint as error:
        own = str(error)
    problems = [""] * distributed.get_world_size()
    distributed.all_gather_object(problems, own)
    # Every rank finds a missing manifest, and it is reported once.
    return "; ".join(dict.fromkeys(filter(None, problems)))
