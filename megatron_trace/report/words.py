"""How numbers are written for people."""

from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 150
"""Columns of what is printed into a file or pipe: wide enough for the tables."""


def console() -> Console:
    """Standard output."""
    found = Console()
    return found if found.is_terminal else Console(width=WIDTH_WITHOUT_TERMINAL)


def counted(number: int, what: str) -> str:
    """ "1 GPU", "2 GPUs"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def seconds_text(seconds: float) -> str:
    """A duration for people, such as `1 h 05 min`."""
    minutes = int(seconds // 60)
    if minutes >= 60:
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes:02d} min"
    if minutes:
        return f"{minutes} min {int(seconds % 60):02d} s"
    return f"{seconds:.1f} s"


def short(count: float) -> str:
    """A large count for people, such as `1.2 M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f}"
