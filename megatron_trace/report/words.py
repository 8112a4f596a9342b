"""How numbers are written for people."""

from rich.console import Console


def console() -> Console:
    """Standard output; wide enough for the tables where it is no terminal."""
    found = Console()
    return found if found.is_terminal else Console(width=150)


def counted(number: int, what: str) -> str:
    """ "1 GPU", "2 GPUs"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def seconds_text(seconds: float) -> str:
    """A duration for people, such as `1 h 05 min`."""
    minutes = int(seconds // 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {int(seconds % 60):02d} s" if minutes else f"{seconds:.1f} s"


def short(count: float) -> str:
    """A large count for people, such as `1.2 M`."""
    units = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
    return next(
        (f"{count / size:.1f} {unit}" for size, unit in units if count >= size), f"{count:.0f}"
    )
