"""How a plan's numbers are written."""

from rich.console import Console

from megatron_trace.plan.machines import GIB


def console() -> Console:
    """Standard output; wide enough for the tables where it is no terminal."""
    found = Console()
    return found if found.is_terminal else Console(width=150)


def counted(number: int, what: str) -> str:
    """ "1 GPU", "2 GPUs"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def spans(layers: list[range]) -> str:
    """Layers counted from 1, "1-10, 21-30"."""
    return ", ".join(f"{part.start + 1}-{part.stop}" for part in layers)


def gib(size: float) -> str:
    """Bytes in GiB."""
    return f"{size / GIB:.1f}" if abs(size) >= 0.1 * GIB else f"{size / GIB:.3f}"


def verdict(fits: bool) -> str:
    """Fits or not, in colour."""
    return "[green]fits[/green]" if fits else "[red]too large[/red]"


def flag(name: str) -> str:
    """The flag of an assumption."""
    return "--" + name.replace("_", "-")
