"""Pages from the templates beside this file: one HTML file each, which needs nothing else."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from megatron_trace.files.atomic import write_text
from megatron_trace.report.svg import printable


@dataclass(frozen=True)
class Tile:
    """A headline number, what it is, and a note below it."""

    name: str
    value: str
    note: str


def write_page(path: Path, template: str, **values: Any) -> Path:
    """Write what `fill` makes to `path`; the file appears only when it is whole."""
    return write_text(path, fill(template, **values))


def fill(template: str, **values: Any) -> str:
    """A template with its values.

    Args:
        template: name of a file in `templates/`.
        values: what the template names. Texts are escaped, except where the template marks a
            drawing as safe.

    Raises:
        jinja2.UndefinedError: the template names a value that is not there.
    """
    return _environment().get_template(template).render(values) + "\n"


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("megatron_trace.report"),
        # Questions, observations and settings come from anywhere and may hold HTML.
        autoescape=True,
        # A misspelt name is an error, not an empty place in the page.
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable_text,
    )


def _printable_text(value: Any) -> Any:
    # Markup is a str as well, but made by the templates: only plain texts come from outside.
    return printable(value) if type(value) is str else value
