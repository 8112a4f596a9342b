"""`shards.json`: size and SHA-256 of the shards in its folder, by which a change is noticed.

`write_shards` writes it. Shards without such a list are read without this check.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path

from megatron_trace.files.atomic import write_text
from megatron_trace.files.problems import BadData

NAME = "shards.json"

Entries = dict[str, dict[str, int | str]]
"""Name of a shard -> `bytes` and `sha256`."""

REMEDY = f"copy it again, or remove {NAME} if the shards were changed on purpose"


def list_shards(paths: Sequence[Path], pattern: str) -> None:
    """Note the shards `paths`, of one folder, in its list.

    Args:
        pattern: glob of their names; shards of an earlier writing that it matches leave the list.
    """
    folder = paths[0].parent
    kept = {name: entry for name, entry in listed(folder).items() if not fnmatch(name, pattern)}
    written = {path.name: _entry(path) for path in paths}
    write_text(folder / NAME, json.dumps(kept | written, indent=1, sort_keys=True) + "\n")


def listed(folder: Path) -> Entries:
    """The list of a folder: name -> `bytes` and `sha256`; empty where there is none.

    Raises:
        BadData: it is damaged.
    """
    file = folder / NAME
    if not file.exists():
        return {}
    try:
        return entries_of(file.read_bytes(), str(file))
    except OSError as error:
        raise BadData(f"{file}: is damaged ({error}); {REMEDY}") from None


def entries_of(content: bytes, place: str) -> Entries:
    """The list whose bytes are `content`; `place` is its file, for messages.

    Raises:
        BadData: it is damaged.
    """
    try:
        entries = json.loads(content.decode("utf-8"))
        return {name: {"bytes": int(one["bytes"]), "sha256": str(one["sha256"])}
                for name, one in entries.items()}  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadData(f"{place}: is damaged ({error}); {REMEDY}") from None


def not_as_listed(path: Path, entries: Entries) -> str:
    """How a shard differs from its entry in its folder's list, or ""; it may have no entry.

    Raises:
        OSError: the shard cannot be read.
    """
    entry = entries.get(path.name)
    if entry is None:
        return ""
    found = _entry(path)
    if found["bytes"] != entry["bytes"]:
        return f"has {found['bytes']} bytes, not the {entry['bytes']} in {NAME}; {REMEDY}"
    if found != entry:
        return f"has not the SHA-256 in {NAME}; {REMEDY}"
    return ""


def missing(folder: Path, pattern: str) -> list[str]:
    """Names in a folder's list that the glob `pattern` matches, and that are no file.

    Raises:
        BadData: the list is damaged.
    """
    return absent(listed(folder), pattern, lambda name: (folder / name).exists())


def absent(entries: Entries, pattern: str, exists: Callable[[str], bool]) -> list[str]:
    """Names in a list that the glob `pattern` matches, and that do not exist."""
    return [name for name in entries if fnmatch(name, pattern) and not exists(name)]


def _entry(path: Path) -> dict[str, int | str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
