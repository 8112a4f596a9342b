"""What files hold, as a few letters: to notice that they are others than before."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

PIECE_BYTES = 1 << 20
PIECES = 64
"""A file larger than all of these pieces together is known by them; they are evenly spaced."""


def content_digest(files: Iterable[Path]) -> str:
    """The first 16 hexadecimal digits of a SHA-256 over sizes and contents, in the given order.

    Names do not count, so files may move. Of a large file a sample of pieces counts: training
    changes every weight, and nobody waits for 60 GB to be read.
    """
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{size}\n".encode())
        with path.open("rb") as file:
            for start in _starts(size):
                file.seek(start)
                digest.update(file.read(PIECE_BYTES))
    return digest.hexdigest()[:16]


def _starts(size: int) -> Iterator[int]:
    """Where the pieces begin; the last one ends with the file."""
    if size <= PIECES * PIECE_BYTES:
        yield from range(0, size, PIECE_BYTES)
        return
    for number in range(PIECES):
        yield number * (size - PIECE_BYTES) // (PIECES - 1)
