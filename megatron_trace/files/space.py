"""Whether a disk has room for what is to be written."""

import shutil
from pathlib import Path


def lacking_room(folder: Path, needed: int) -> str:
    """What to tell where the disk of `folder` lacks room, or "".

    Args:
        folder: it need not exist yet; then the folder above it counts.
        needed: bytes.
    """
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free >= needed:
        return ""
    return f"{folder} has {free / 1e9:.3f} GB free, and about {needed / 1e9:.3f} GB are needed"
