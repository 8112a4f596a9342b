"""How a plan's numbers are written."""

from megatron_trace.plan.machines import GIB


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
