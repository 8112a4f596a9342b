"""How a guard says and writes something down, without ever failing at it."""

import os
from contextlib import suppress
from pathlib import Path


def say(text: str) -> None:
    """Print to the run's stderr in one piece. The terminal may be gone."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())


def try_to_write(path: Path, text: str) -> None:
    """Write a file, or say why that is impossible. A full disk must not stop the guard."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        say(f"{path} could not be written: {error.strerror}")
