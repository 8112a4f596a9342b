"""What is wrong with data, as lines; and the error that tells it."""

from collections.abc import Sequence


class BadData(ValueError):
    """Data cannot be used. The message is one line that names the file, and the member in it."""


def refuse(problems: Sequence[str]) -> None:
    """Raise `BadData` if there are problems."""
    if problems:
        raise BadData(first_of(problems))


def first_of(problems: Sequence[str]) -> str:
    """The first of several problems, and how many there are."""
    more = len(problems) - 1
    return problems[0] + (f" (and {more} more)" if more else "")
